"""Rows of heads and blocks are means over utterances of what each utterance's own maps give."""

import re

import numpy as np
import pytest

from otoscope import functional as F
from otoscope.diagnosis import Observation
from otoscope.diagnosis.result import Diagnosis, table_of
from otoscope.measures.measure import Row
from otoscope.models import load
from otoscope.models.reductions import RowEntropy, WholeMap
from otoscope.statistics import groups, ratio_jackknife
from otoscope.surgery import CutHeads, Span, apply
from tests.diagnosis.small_speech import small_speech
from tests.models.small import CASES

SEED = 3
METRICS = {"globalness": F.globalness, "verticality": F.verticality, "diagonality": F.diagonality}


class Seen:
    """A diagnosis of a corpus, and the maps (layers, heads, T, T) of each of its utterances."""

    def __init__(self, model, utterances):
        corpus = small_speech(utterances)
        observation = Observation.prepare(model, corpus, "heads,blocks", SEED)
        observation.update(batch_seconds=4)
        self.diagnosis = observation.compute()
        self.maps = []
        for one in corpus:
            found = model.capture([one], [one.read()], (), [WholeMap]).attention
            self.maps.append(np.stack([found[layer][0]["whole-map"].double().numpy() for layer in sorted(found)]))
        self.maps = [maps / maps.sum(-1, keepdims=True) for maps in self.maps]
        self.group = np.array([groups([u.id for u in corpus], SEED)[u.id] for u in corpus])

    def by_group(self, values):
        """Sums and counts of utterances' values, (groups, ...) and (groups,)."""
        used = range(self.group.max() + 1)
        return np.stack([values[self.group == g].sum(0) for g in used]), np.bincount(self.group)


@pytest.fixture(scope="module", params=[12, 22])
def seen(request):
    """12 utterances are a group each; 22 are dealt into 20 groups of one and two."""
    return Seen(load(CASES[0].build()), request.param)


@pytest.mark.parametrize("name", METRICS)
def test_heads_are_the_jackknifed_mean_of_utterances(seen, name):
    values = np.stack([METRICS[name](maps) for maps in seen.maps])
    rows = seen.diagnosis.measure(name).sort("layer", "head")
    expected = ratio_jackknife(*seen.by_group(values))
    assert rows.select("value", "low", "high").null_count().row(0) == (0, 0, 0)
    for column, numbers in zip(("value", "low", "high"), expected, strict=True):
        np.testing.assert_allclose(rows[column].to_numpy(), numbers.ravel(), rtol=0, atol=2e-5, err_msg=column)
    assert (rows["high"] - rows["low"]).min() > 1e-4


def test_categories_are_kept_as_often_as_with_each_group_left_out(seen):
    values = [np.stack([metric(maps) for maps in seen.maps]) for metric in METRICS.values()]
    names, margins = F.head_categories(*(v.mean(0) for v in values))
    rows = seen.diagnosis.measure("category").sort("layer", "head")
    assert rows["label"].to_list() == names.ravel().tolist()
    assert rows["value"].to_list() == margins.ravel().tolist()
    left_out = range(seen.group.max() + 1)
    kept = np.mean(
        [F.head_categories(*(v[seen.group != g].mean(0) for v in values))[0] == names for g in left_out], axis=0
    )
    found = seen.diagnosis.provenance["notes"]["category"]["kept_with_a_group_left_out"]
    for (layer, head), share in np.ndenumerate(kept):
        assert found[f"{layer + 1}.{head}"] == pytest.approx(share, abs=1e-4)
    assert 0 < kept.min() < 1  # else any rule would do


def test_profiles_are_the_mean_of_utterances_profiles_of_the_mean_map(seen):
    profiles = np.stack([F.relative_profile(maps.mean(1)) for maps in seen.maps])  # (utterances, layers, bins)
    uniform = np.mean([F.relative_profile(np.full(m.shape[-2:], 1 / m.shape[-1])) for m in seen.maps], axis=0)
    expected = ratio_jackknife(*seen.by_group(profiles))
    for layer in range(profiles.shape[1]):
        rows = seen.diagnosis.measure("relative-profile").filter(layer=layer + 1)
        # Keys before the query have negative offsets.
        assert rows["target"].to_list() == ["<-50", *(str(d) for d in range(-50, 51)), ">50"]
        for column, numbers in zip(("value", "low", "high"), expected, strict=True):
            np.testing.assert_allclose(rows[column].to_numpy(), numbers[layer], rtol=0, atol=1e-6, err_msg=column)
        np.testing.assert_allclose(rows["floor"].to_numpy(), uniform, rtol=0, atol=1e-12)
        # Past and future differ by far more than the tolerance.
        assert np.abs(expected[0][layer] - expected[0][layer][::-1]).max() > 5e-5


def test_attention_on_padding_is_the_mean_over_utterances_and_heads():
    """Whisper attends to the silence it is padded with; how much is noted, whatever the batches and parts."""
    model = load(next(case for case in CASES if case.name == "whisper").build())
    corpus = small_speech(5)
    alone = [model.capture([one], [one.read()], (), [RowEntropy]).outside for one in corpus]
    expected = {f"layer.{k}": np.mean([one[k][0].mean() for one in alone]) for k in alone[0]}
    assert min(expected.values()) > 0.1

    def observed(ids):
        observation = Observation.prepare(model, corpus, "heads")
        observation.update(corpus.subset(ids), batch_seconds=4)
        return observation

    ids = [one.id for one in corpus]
    whole, merged = observed(ids), observed(ids[:3])
    merged.merge(observed(ids[3:]))
    for observation in (whole, merged):
        found = observation.compute().provenance["notes"]["attention_on_padding"]
        assert found == pytest.approx(expected, abs=2e-6)


def test_attention_on_padding_is_of_the_heads_that_are_left_and_not_of_spans():
    model = load(next(case for case in CASES if case.name == "whisper").build())
    corpus = small_speech(2)
    cut = apply(model, [CutHeads("layer.2.head.0,1"), CutHeads("layer.3")])

    def noted(model):
        observation = Observation.prepare(model, corpus, "diagonality")
        observation.update(corpus)
        return observation.compute().provenance["notes"].get("attention_on_padding")

    found = noted(cut)
    assert set(found) == {"layer.1", "layer.2"}
    outside = [cut.capture([one], [one.read()], (), [RowEntropy]).outside[2][0] for one in corpus]
    assert found["layer.2"] == pytest.approx(float(np.mean([one.mean() for one in outside])), abs=2e-6)
    within = apply(load(next(case for case in CASES if case.name == "wav2vec2-group").build()), [Span("layer.*", 2)])
    assert noted(within) is None


@pytest.mark.parametrize(("hop_ms", "reach"), [(20.0, 5), (40.0, 2), (80.0, 1)])
def test_100_ms_are_as_many_frames_as_fit(hop_ms, reach):
    """Mass falls off by a half from offset to offset; that within the reach is told, that beyond is not."""
    offsets = np.arange(-8, 9)
    mass = 0.5 ** np.abs(offsets) / (0.5 ** np.abs(offsets)).sum()
    floor = (19 - np.abs(offsets)) / 361
    rows = [
        Row("relative-profile", layer=layer, target=str(d), value=value, floor=low)
        for layer, values in ((1, mass), (2, np.full(17, 0.02)))
        for d, value, low in zip(offsets, values, floor, strict=True)
    ]
    rows += [Row("relative-profile", layer=k, target=t, value=0.2, floor=0.1) for k in (1, 2) for t in ("<-50", ">50")]
    (line,) = Diagnosis(table_of(rows), {}, {"model": {"hop_ms": hop_ms}}).sentences()
    near = np.abs(offsets) <= reach
    told = [int(x) for x in re.findall(r"(\d+)%", line)]
    assert told == [round(100 * x) for x in (mass[near].sum(), 0.02 * near.sum(), floor[near].sum())]
    assert "Block 1 attends most locally" in line
