"""Entries of the catalogue that tell what layers know."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from otoscope.diagnosis.entries import ONE, Entry, Make, plain
from otoscope.diagnosis.options import Options
from otoscope.errors import MeasureError
from otoscope.measures.layers.held_out import PREFIXES
from otoscope.measures.measure import Measure


def _cca(target: str, **settings: Any) -> Make:
    def make(options: Options) -> Measure:
        from otoscope.measures.layers.cca import CCA, PLAIN_TARGETS

        return CCA(
            target,
            folding=options.folding,
            table=None if target in PLAIN_TARGETS else options.table(target),
            other=options.other if target == "inter" else None,
            **settings,
        )

    return make


_LAYERS = "input, a layer"
_CCA = {
    "mel": ("a stream", "how much of the sound (log-mel) a stream holds", ""),
    "intra": ("a layer", "how much of what enters layer 1 is left", ""),
    "inter": (_LAYERS, "how much of another model's stream of the same depth it holds", "--against MODEL"),
    "phone": (_LAYERS, "how well phones are told apart", ""),
    "word": (_LAYERS, "how well frequent words are told apart", ""),
    "speaker": (_LAYERS, "how well speakers are told apart", ""),
    "semantic": (_LAYERS, "how much of words' meaning (semantic attributes) it holds", ""),
    "syntactic": (_LAYERS, "how much of words' parts of speech it holds", ""),
    "glove": (_LAYERS, "how much of word vectors learned from text it holds", "--table glove=PATH"),
    "agwe": (_LAYERS, "how much of acoustically grounded word vectors it holds", "--table agwe=PATH"),
}
_VARIANTS = {
    "mean": ("mean of the correlations, up to 1", "; plain mean"),
    "svcca": ("mean of the correlations within 99 % of the variance, up to 1", "; main components"),
    "pasad": ("score of the released code of Pasad et al., up to 1", "; the released code's convention"),
    "r2": ("R squared, up to 1", "; by ridge regression"),
}


def _correlations() -> Iterator[Entry]:
    """PWCCA with every target, then the variants of it."""
    for target, (rows, tells, needs) in _CCA.items():
        yield Entry(f"cca-{target}", "layers", rows, "PWCCA, up to 1", ONE, tells, _cca(target), needs)
    for statistic, (unit, also) in _VARIANTS.items():
        for target, (rows, tells, needs) in _CCA.items():
            if statistic == "r2" and target in ("phone", "word", "speaker"):
                continue  # of continuous targets
            name = f"{PREFIXES[statistic]}-{target}"
            make = _cca(target, statistic=statistic)
            yield Entry(name, "variants", rows, unit, ONE, f"{tells}{also}", make, needs)


def _maps() -> Iterator[Entry]:
    for kind, unit, tells in (
        ("cka", "debiased linear CKA, 0 to 1", "how alike two streams are, up to a rotation and a scale"),
        ("procrustes", "angle in radians, 0 to pi / 2", "how far apart two streams are, up to a rotation and a scale"),
    ):
        yield Entry(kind, "layers", "a pair of streams", unit, ONE, tells, plain("layers.maps.LayerMap", kind))
        yield Entry(
            f"{kind}-inter", "layers", "a stream of each model", unit, ONE, f"{tells}; of two models",
            _between(kind), "--against MODEL",
        )  # fmt: skip


def _between(kind: str) -> Make:
    def make(options: Options) -> Measure:
        from otoscope.measures.layers.maps import LayerMap

        if options.other is None:
            raise MeasureError(f"{kind}-inter needs another model", "Name one: --against MODEL.")
        return LayerMap(kind, options.other)

    return make


def _clusters() -> Iterator[Entry]:
    """Three figures of one clustering."""
    for target in ("phone", "word"):
        for prefix, unit, tells in (
            ("mi", "share of the labels' entropy, 0 to 1", f"how much of {target}s clusters of a stream tell"),
            ("ami", "adjusted mutual information, up to 1", f"the same, corrected for chance ({target}s)"),
            ("purity", "share of the rows, 0 to 1", f"how many rows have the commonest {target} of their cluster"),
        ):
            yield Entry(
                f"{prefix}-{target}", "layers", _LAYERS, unit, ONE, tells,
                plain("layers.clusters.ClusterInformation", target), made_by=f"mi-{target}",
            )  # fmt: skip


_PROBES = {
    "linear": (
        ("probe", "accuracy, 0 to 1", "how often a linear probe names the {}"),
        ("selectivity", "difference of accuracies", "by how much more often than it names control labels ({})"),
    ),
    "mlp": (
        ("probe-mlp", "accuracy, 0 to 1", "how often a probe with one hidden layer names the {}"),
        ("selectivity-mlp", "difference of accuracies", "by how much more often than control labels ({})"),
    ),
    "codelength": (("mdl", "times shorter than a uniform code", "how short the {} can be told by an online code"),),
    "weights": (
        ("probe-weighted", "accuracy, 0 to 1", "how often a linear probe of a weighted sum of layers names the {}"),
        ("weight", "share, 0 to 1", "what the weighted sum takes of each layer to name the {}"),
    ),
}


def _probes() -> Iterator[Entry]:
    """Probes of one target store one set of vectors; only the parts that are wanted are trained."""
    for target in ("phone", "word", "speaker", "frame-phone"):
        for kinds in _PROBES.values():
            for prefix, unit, tells in kinds:
                if target == "speaker" and prefix.startswith("selectivity"):
                    continue  # an utterance is its own type
                rows = "the model" if prefix == "probe-weighted" else _LAYERS
                yield Entry(
                    f"{prefix}-{target}", "probes", rows, unit, ONE, tells.format(target.replace("-", "'s ")),
                    _probing(target), made_by=f"probe-{target}",
                )  # fmt: skip


def _probing(target: str) -> Make:
    def make(options: Options) -> Measure:
        from otoscope.measures.layers.probing import Probes

        parts = [
            part for part, kinds in _PROBES.items()
            if not options.wanted or any(f"{prefix}-{target}" in options.wanted for prefix, _, _ in kinds)
        ]  # fmt: skip
        return Probes(target, parts=parts)

    return make


_LOWER = "error, 0 to 0.5 by chance; lower is better"


def _tasks() -> Iterator[Entry]:
    """Training-free tasks."""
    rows = {
        "awd": (
            "average precision, 0 to 1", "how well same words lie nearer than other words (pooled)",
            plain("layers.discrimination.WordDiscrimination"),
        ),
        "awd-dtw": (
            "average precision, 0 to 1", "the same for sequences of frames, aligned",
            plain("layers.discrimination.AlignedWordDiscrimination"),
        ),
        "abx-within": (
            _LOWER, "how often a phone is nearer to another than to its like, one speaker", plain("layers.abx.PhoneABX"),
        ),
        "abx-across": (_LOWER, "the same across speakers", plain("layers.abx.PhoneABX", across=True)),
        "word-segmentation": (
            "F1 and others, 0 to 1", "how well jumps between frames find where words meet",
            plain("layers.segmentation.WordSegmentation"),
        ),
        "word-similarity": (
            "Spearman's rho", "whether words that people find alike are near each other",
            _words_alike,
        ),
        "sentence-similarity": (
            "Spearman's rho", "whether sentences that people find alike are near each other",
            _sentences_alike,
        ),
    }  # fmt: skip
    for name, (unit, tells, make) in rows.items():
        yield Entry(name, "layers", _LAYERS, unit, ONE, tells, make)


def _words_alike(options: Options) -> Measure:
    from otoscope.measures.layers.similarity import WordSimilarity

    return WordSimilarity(options.pairs_of_words())


def _sentences_alike(options: Options) -> Measure:
    from otoscope.measures.layers.similarity import SentenceSimilarity

    return SentenceSimilarity(options.pairs_of_sentences())


def _word_spans() -> Iterator[Entry]:
    for span in ("centre", "quarter-1", "quarter-2", "quarter-3", "quarter-4"):
        yield Entry(
            f"cca-word-{span}", "word-spans", _LAYERS, "PWCCA, up to 1", ONE,
            f"how well the {span.replace('-', ' ')} of a word tells which it is", _cca("word", span=f"word-{span}"),
        )  # fmt: skip


def layer_entries() -> Iterator[Entry]:
    """All of them, in the order of the catalogue."""
    for entries in (_correlations, _word_spans, _maps, _clusters, _tasks, _probes):
        yield from entries()
