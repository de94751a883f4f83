"""Many variants over a corpus: what is cut off goes on, what is decided stops, what is not finite is counted as chance."""

import math

import numpy as np
import pytest
import torch

from otoscope.errors import EvaluationError, NotFiniteError, ResultError
from otoscope.evaluation import CTCLoss, WordErrorRate
from otoscope.evaluation.metric import Metric
from otoscope.evaluation.scores import Scores
from otoscope.evaluation.self_supervised import ContrastiveAccuracy, ContrastiveLoss
from otoscope.interventions.engine import BASE
from otoscope.interventions.scoring import scores_of_variants
from otoscope.interventions.sequential import Stopping
from otoscope.models import load
from otoscope.speech.corpus import Corpus
from otoscope.statistics import uniform
from otoscope.surgery import Gate, Redraw, Reset, apply
from tests.evaluation.speaking import VOCABULARY, small_recogniser
from tests.evaluation.speaking import speech as spoken
from tests.models.small import CASES
from tests.surgery.cases import speech as noise

EFFECTS = {"far": 5.0, "near": 0.0, "between": 0.5, "chance": 9.0}
VARIANTS = {name: [Gate("layer.1", value)] for name, value in zip(EFFECTS, (0.1, 0.2, 0.3, 0.4), strict=True)}
STOP = Stopping(0.3, 1.0, least=5)
BATCH = 0.6  # seconds: two utterances
NAN, INFINITE = math.nan, math.inf


class Scripted(Metric):
    """Numbers that depend on the names of variant and utterance alone; nothing is run."""

    name, unit = "scripted", "points"

    def __init__(self, broken=(), most=10**9, empty=()):
        self.broken, self.most, self.empty = dict(broken), [most], set(empty)  # no plain value: it is no other metric
        self.seen = []

    def values(self, model, corpus, *, batch_seconds=30.0, progress=None):
        which = model.name.rpartition("(")[2].removesuffix(")") if "(" in model.name else BASE
        self.seen.append((which, tuple(u.id for u in corpus)))
        if len(self.seen) > self.most[0]:
            raise KeyboardInterrupt
        rows = []
        for one in corpus:
            value = 1 + EFFECTS.get(which, 0.0) + (0.2 * uniform(0, which + one.id) if which else 0)
            rows.append((self.broken.get((which, one.id), value), 0.0 if one.id in self.empty else 1.0))
        numerator, denominator = np.array(rows).T
        ids, speakers = tuple(u.id for u in corpus), tuple(u.speaker for u in corpus)
        return Scores(self.name, self.unit, False, ids, speakers, numerator, denominator)


@pytest.fixture(scope="module")
def model():
    return load(next(case for case in CASES if case.name == "wav2vec2-group").build().eval())


@pytest.fixture(scope="module")
def corpus():
    return Corpus.from_arrays(
        [np.full(4800, 0.1, np.float32) for _ in range(24)], speakers=[f"s{k % 4}" for k in range(24)], name="constant"
    )


def scored(model, corpus, metric, **options):
    return scores_of_variants(model, corpus, VARIANTS, metric, batch_seconds=BATCH, **options)


def same(one, other):
    """Whether two results are the same, bit for bit."""
    pairs = [(one.before, other.before), *((one.after[name], other.after[name]) for name in VARIANTS)]
    return (one.stopped, one.replaced) == (other.stopped, other.replaced) and all(
        a.ids == b.ids and np.array_equal(a.numerator, b.numerator) and np.array_equal(a.denominator, b.denominator)
        for a, b in pairs
    )


def test_what_is_decided_stops_and_the_rest_is_run_wholly(model, corpus):
    metric = Scripted()
    found = scored(model, corpus, metric, stop=STOP, chance="chance")
    assert len(found.before) == 24
    assert found.stopped == {"far": 10, "near": 10}  # five batches of two
    assert {name: len(found.after[name]) for name in VARIANTS} == {"far": 10, "near": 10, "between": 24, "chance": 24}
    assert [which for which, _ in metric.seen].count("far") == 5
    # In the corpus' order; a difference is that on the utterances that were run.
    assert found.after["far"].ids == tuple(one.id for one in corpus if one.id in found.after["far"].ids)
    difference = found.difference("far")
    assert difference.utterances == 10
    assert difference.value == pytest.approx(
        found.after["far"].value - found.before.subset(found.after["far"].ids).value
    )
    # Batches come in the order that the seed draws, not longest first.
    assert found.after["far"].ids != found.before.ids[:10]
    assert (
        scored(model, corpus, Scripted(), stop=Stopping(0.3, 1.0, 5, seed=1)).after["far"].ids != found.after["far"].ids
    )
    assert "chance" in scored(model, corpus, Scripted(), stop=STOP).stopped


def test_without_a_rule_nothing_stops(model, corpus):
    found = scored(model, corpus, Scripted())
    assert found.stopped == {}
    assert all(found.after[name].ids == found.before.ids for name in VARIANTS)


@pytest.mark.parametrize("options", [{}, {"stop": STOP, "chance": "chance"}], ids=["all", "stopping"])
def test_a_run_that_was_cut_off_goes_on_with_the_same_numbers_and_decisions(model, corpus, tmp_path, options):
    uncut = Scripted()
    whole = scored(model, corpus, uncut, **options)
    cut = 5 * 7 - 2  # in the seventh batch, and in the third without stopping
    cut = cut if options else 5 * 2 + 3
    with pytest.raises(KeyboardInterrupt):
        scored(model, corpus, Scripted(most=cut), store=tmp_path, **options)
    done = len(list(tmp_path.glob("part-*.json")))
    assert done == (2 if not options else 7)
    rest, told = Scripted(), []
    again = scored(model, corpus, rest, store=tmp_path, progress=lambda *seconds: told.append(seconds), **options)
    assert same(again, whole)
    assert sorted(rest.seen) == sorted(uncut.seen[-len(rest.seen) :])
    assert len({ids for _, ids in rest.seen}) == 12 - done
    assert told[-1] == pytest.approx((0.6 * (12 - done), 0.6 * (12 - done)))
    nothing = Scripted()
    assert same(scored(model, corpus, nothing, store=tmp_path, **options), whole)
    assert nothing.seen == []


def test_another_rule_of_stopping_is_another_run(model, corpus, tmp_path):
    scored(model, corpus, Scripted(), store=tmp_path, stop=STOP)
    with pytest.raises(ResultError, match="rule of stopping"):
        scored(model, corpus, Scripted(), store=tmp_path)
    with pytest.raises(ResultError, match="rule of stopping"):
        scored(model, corpus, Scripted(), store=tmp_path, stop=Stopping(0.3, 1.1, least=5))


def test_values_that_are_not_finite_are_those_of_chance_utterance_by_utterance(model, corpus):
    bad = {("far", corpus[3].id): NAN, ("far", corpus[20].id): -INFINITE, ("near", corpus[3].id): INFINITE}
    found = scored(model, corpus, Scripted(bad), chance="chance")
    clean = scored(model, corpus, Scripted())
    assert found.replaced == {"far": 2, "near": 1}
    for name in VARIANTS:
        for k, one in enumerate(corpus):
            wanted = clean.after["chance" if (name, one.id) in bad else name].numerator[k]
            assert found.after[name].numerator[k] == wanted


def test_without_chance_they_are_refused_and_what_was_finished_is_kept(model, corpus, tmp_path):
    bad = {("near", corpus[5].id): NAN}
    with pytest.raises(NotFiniteError, match=rf"variant 'near' for utterance '{corpus[5].id}'") as caught:
        scored(model, corpus, Scripted(bad), store=tmp_path)
    assert isinstance(caught.value, EvaluationError)
    assert len(list(tmp_path.glob("part-*.json"))) == 3
    rest = Scripted(bad)
    found = scored(model, corpus, rest, store=tmp_path, chance="chance")
    assert found.replaced == {"near": 1}
    assert len({ids for _, ids in rest.seen}) == 9
    assert same(found, scored(model, corpus, Scripted(bad), chance="chance"))


def test_chance_itself_and_the_unedited_model_must_be_finite(model, corpus):
    first = corpus[0].id
    for bad in ({("chance", first): NAN}, {("chance", first): NAN, ("far", first): NAN}):
        with pytest.raises(NotFiniteError, match=r"'chance', which stands for chance"):
            scored(model, corpus, Scripted(bad), chance="chance")
    assert scored(model, corpus, Scripted({("far", corpus[0].id): NAN}), chance="chance").replaced == {"far": 1}
    with pytest.raises(NotFiniteError, match=rf"for utterance '{first}'"):
        scored(model, corpus, Scripted({(BASE, first): NAN}), chance="chance")
    with pytest.raises(EvaluationError, match="No variant is called 'luck'"):
        scored(model, corpus, Scripted(), chance="luck")


def test_an_utterance_in_which_nothing_is_counted_shares_the_fate_of_its_neighbour(model, corpus):
    ids = [one.id for one in corpus]
    one_batch = {"batch_seconds": 100.0, "chance": "chance"}

    def replaced(broken, empty):
        metric = Scripted({("far", ids[k]): NAN for k in broken}, empty=[ids[k] for k in empty])
        return scores_of_variants(model, corpus, VARIANTS, metric, **one_batch).replaced["far"]

    assert replaced([4], []) == 1
    assert replaced([4], [5, 6, 10]) == 3  # and the two behind it
    assert replaced([1], [0]) == 2  # and the one before it


@pytest.fixture(scope="module")
def broken_recogniser():
    """A recogniser, and edits after which its second layer gives values that are not finite."""
    recogniser = small_recogniser()
    state = dict(recogniser.model.source.state_dict())
    name = "wav2vec2.encoder.layers.1.attention.k_proj.weight"
    state[name] = torch.full_like(state[name], torch.inf)
    variants = {"broken": [Reset("layer.2", state)], "drawn": [Redraw("layer.*", seed=3)]}
    return recogniser, variants


@pytest.mark.parametrize("metric", [CTCLoss(), WordErrorRate()], ids=["ctc-loss", "wer"])
def test_a_recogniser_that_gives_nan_is_never_a_quiet_number(broken_recogniser, metric):
    recogniser, variants = broken_recogniser
    corpus = spoken(seconds=(0.7, 0.9, 0.5), transcripts=("A cat", "the cats", ""))
    with pytest.raises(NotFiniteError, match="variant 'broken'"):
        scores_of_variants(recogniser, corpus, variants, metric)
    found = scores_of_variants(recogniser, corpus, variants, metric, chance="drawn")
    assert found.replaced == {"broken": 3}
    assert np.array_equal(found.after["broken"].numerator, found.after["drawn"].numerator)
    edited = apply(recogniser.model, variants["drawn"])
    assert found.after["drawn"].value == pytest.approx(
        metric.values(type(recogniser)(edited, VOCABULARY), corpus).value
    )


def test_hits_of_nan_are_no_misses():
    source = next(case for case in CASES if case.name == "wav2vec2-pretraining").build().eval()
    whole = load(source)
    state = {
        name: torch.full_like(one, torch.nan) for name, one in source.state_dict().items() if one.is_floating_point()
    }
    broken = apply(whole, [Reset("layer.3", state)])
    for metric in (ContrastiveAccuracy(), ContrastiveLoss()):
        assert math.isfinite(metric.values(whole, noise(0.5)).value)
        with pytest.raises(NotFiniteError):
            metric.values(broken, noise(0.5))
