"""Context mixing over a corpus: how far each layer reaches by what it takes, beside its raw attention."""

from __future__ import annotations

import numpy as np

from otoscope.errors import AudioError, MeasureError
from otoscope.interventions.mixing.single import METHODS, SPANS, Mixing, mix, word_spans_of
from otoscope.interventions.mixing.sublayers import MAX_FRAMES
from otoscope.measures.measure import Result, Row
from otoscope.models.model import SpeechModel
from otoscope.speech.corpus import Corpus
from otoscope.speech.utterance import Utterance
from otoscope.statistics import groups, uniform
from otoscope.statistics.grouped_mean import GroupedMean
from otoscope.surgery.units import Parts

TARGETS = ("distance", "diagonality", "own-share", "distance-less-attention")
_WORDS = "-words"


def method_and_spans(measure: str) -> tuple[str, str]:
    """Method and spans of a measure of context mixing, by its name.

    >>> method_and_spans("mixing-norm-rollout"), method_and_spans("mixing-value-zeroing-words")
    (('norm-rollout', 'frame'), ('value-zeroing', 'word'))
    """
    spans = "word" if measure.endswith(_WORDS) else "frame"
    return measure.removeprefix("mixing-").removesuffix(_WORDS), spans


def context_mixing(
    model: SpeechModel,
    corpus: Corpus,
    method: str = "norm",
    *,
    spans: str = "frame",
    limit: int = 20,
    seed: int = 0,
    through: str | None = None,
    pool: str = "mean",
    max_frames: int = MAX_FRAMES,
) -> Result:
    """Sums up context mixing layer by layer; every utterance weighs the same.

    Rows of the measure "mixing-METHOD" ("mixing-METHOD-words" for words) for every layer, by target: "distance", the mean
    distance between who takes and who gives, sum_j C[i, j] |i - j| averaged over i, in frames (or words); "diagonality",
    minus that distance over the number of frames, as of attention maps; "own-share", what frames take of themselves,
    C[i, i]; and "distance-less-attention", the paired difference to the mean of the raw weights over heads (rolled out
    where the method is a rollout). The method "norm" has "mixing-ratio" beside: how much of a frame is of others (see
    `norms_of`). Intervals are a jackknife over groups of utterances.

    Args:
        model: left as it is.
        corpus: speech; with words, where `spans` is "word".
        method: one of "attention", "norm", "value-zeroing" and the rollouts of these.
        spans: "frame" or "word".
        limit: at most so many utterances, in the order of a hash.
        seed: of that choice and of the groups.
        through: see `norm_based`.
        pool: see `value_zeroing`.
        max_frames: utterances with more frames are left out and counted.

    Raises:
        MeasureError: a name is unknown, the limit is below 1, or no utterance can be taken; or see
            `attention_sublayers`.
        CorpusError: the corpus has no words, where they are asked for.
    """
    for what, name, known in (("method", method, METHODS), ("span", spans, SPANS)):
        if name not in known:
            raise MeasureError(f"No {what} is called {name!r}", f"Choose from {', '.join(known)}.")
    if limit < 1:
        raise MeasureError(f"{limit} utterances are none", "Give a limit of 1 or more.")
    if spans == "word":
        corpus.require_tier("word")
    chosen, left_out = _chosen(model, corpus, spans, limit, seed, max_frames)
    rolled = method.endswith("-rollout")
    beside = "attention-rollout" if rolled else "attention"
    targets = (*TARGETS, *(("mixing-ratio",) if method == "norm" else ()))
    targets = tuple(t for t in targets if method != beside or t != "distance-less-attention")
    group_of = groups((u.id for u in chosen), seed)
    layers = list(Parts(model.encoder, model.family).attentions())
    means = GroupedMean(max(group_of.values()) + 1, (len(layers), len(targets)))
    outside = np.zeros(len(layers))
    for utterance in chosen:
        found = mix(
            model, utterance, tuple(dict.fromkeys((method, beside))), spans=spans, through=through, pool=pool,
            max_frames=max_frames,
        )  # fmt: skip
        means.update(group_of[utterance.id], _figures(found[method], found[beside], targets))
        outside += found[method].outside
    value, low, high = means.interval()
    measure = f"mixing-{method}" + (_WORDS if spans == "word" else "")
    rows = [
        Row(
            measure, stream=f"layer.{layer}", layer=layer, target=target,
            other=beside if target == "distance-less-attention" else None, value=float(value[place, k]),
            low=_number(low[place, k]), high=_number(high[place, k]), n=means.n,
        )
        for place, layer in enumerate(layers)
        for k, target in enumerate(targets)
    ]  # fmt: skip
    notes = {
        "method": method, "spans": spans, "distance_in": f"{spans}s", "seed": seed, "limit": limit,
        "max_frames": max_frames, "left_out": left_out, "groups": len(means.counts), "groups_by": "utterance",
        "part_of_the_layer": "attention" if model.family.convolution and method.startswith("norm") else "layer",
    }  # fmt: skip
    if method.startswith("norm"):
        notes["through"] = through or "as far as each layer goes: its norm (post-LN), else its residual"
    if outside.any():
        notes["share_of_padding"] = {
            f"layer.{layer}": round(float(share), 6) for layer, share in zip(layers, outside / means.n, strict=True)
        }
    return Result(rows, notes=notes)


def _chosen(
    model: SpeechModel, corpus: Corpus, spans: str, limit: int, seed: int, max_frames: int
) -> tuple[list[Utterance], dict[str, int]]:
    """Utterances that are looked at, and how many are not, by reason."""
    left_out = {"too_long": 0, "too_short": 0, "fewer_than_two_words": 0}
    fit = []
    for utterance in corpus:
        n = utterance.n_samples
        if model.frontend.attended(n) > max_frames or _refuses(model, utterance):
            left_out["too_short" if model.frontend.frames(n) < 2 else "too_long"] += 1
        elif spans == "word" and len(_words(model, utterance)) < 2:
            left_out["fewer_than_two_words"] += 1
        else:
            fit.append(utterance)
    if not fit:
        raise MeasureError(
            f"None of the {len(corpus)} utterances of corpus {corpus.name} can be taken: {left_out['too_long']} have "
            f"more frames than max_frames ({max_frames}) or than the model takes, {left_out['too_short']} are too short, "
            f"{left_out['fewer_than_two_words']} have fewer than two words",
            "Cut the utterances into parts, or give a greater max_frames.",
        )
    order = sorted(fit, key=lambda u: (uniform(seed, u.id, purpose="mixing"), u.id))
    left_out["not_drawn"] = max(0, len(fit) - limit)
    return sorted(order[:limit], key=lambda u: u.id), left_out


def _words(model: SpeechModel, utterance: Utterance) -> list[tuple[tuple[int, int], str]]:
    """The words of an utterance; none where it lacks the tier."""
    if "word" not in utterance.tiers:
        return []
    return word_spans_of(utterance, model.anatomy.grid, model.frontend.frames(utterance.n_samples))


def _refuses(model: SpeechModel, utterance: Utterance) -> bool:
    try:
        model.frontend.check(utterance.n_samples, f"Utterance {utterance.id!r}")
    except AudioError:
        return True
    return False


def _figures(found: Mixing, beside: Mixing, targets: tuple[str, ...]) -> np.ndarray:
    """What `context_mixing` tells of one utterance, (L, targets)."""
    n = found.maps.shape[-1]
    apart = np.abs(np.subtract.outer(np.arange(n), np.arange(n)))

    def distance(mixing: Mixing) -> np.ndarray:
        return (mixing.maps.astype(np.float64) * apart).sum((1, 2)) / n

    known = {
        "distance": distance(found),
        "diagonality": -distance(found) / n,
        "own-share": found.maps.diagonal(axis1=1, axis2=2).mean(1, dtype=np.float64),
        "distance-less-attention": distance(found) - distance(beside),
    }
    if found.ratio is not None:
        known["mixing-ratio"] = found.ratio.mean(1, dtype=np.float64)
    return np.stack([known[target] for target in targets], axis=1)


def _number(value: float) -> float | None:
    """A float for the table; None where there is none."""
    return float(value) if np.isfinite(value) else None
