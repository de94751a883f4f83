"""Probes know exactly what is there: all of it, nothing of it, and never what they were not to see."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from otoscope.errors import CorpusError, MeasureError
from otoscope.models.anatomy import Grid
from otoscope.models.model import SpeechModel
from otoscope.speech import log_mel
from otoscope.speech.corpus import Corpus
from otoscope.training.probes import TASKS, fit_readouts, make_task, probed_speech
from otoscope.training.probes.readouts import constant
from tests.models.small import CASES
from tests.training.probe_material import HOP, corpus_of, noise_of, one_hot, quick, speech_of


@pytest.fixture(scope="module")
def speech():
    return speech_of(corpus_of())


@pytest.fixture(scope="module")
def tasks(speech):
    return {name: quick(make_task(name, speech)) for name in TASKS}


@pytest.mark.parametrize("name", ["phone", "speaker"])
def test_labels_that_stand_in_the_frames_are_read_without_error(tasks, name):
    task = make_task(name, tasks[name].speech)
    x = one_hot(task, task.targets)
    scores = task.scores(task.fit(x), x)
    assert scores.value == 1
    assert scores.higher_is_better
    assert scores.denominator.sum() == len(task.targets)


def test_a_speaker_in_every_frame_is_read_from_the_mean_of_an_utterance(tasks):
    frames = tasks["speaker"]
    x = one_hot(frames, frames.targets) + 0.3 * noise_of(frames.speech, 4)
    task = tasks["speaker-utterance"]
    assert task.scores(task.fit(x), x).value == 1
    assert len(task.targets) == len(task.speech.corpus)
    means = torch.stack([part.mean(0) for part in x.split([task.speech.frames[u.id] for u in task.speech.corpus])])
    torch.testing.assert_close(task.inputs(x), means)


@pytest.mark.parametrize("name", ["phone", "speaker"])
def test_of_noise_nothing_is_read(tasks, name):
    task = tasks[name]
    x = noise_of(task.speech)
    chance = float(torch.bincount(task.targets).max()) / len(task.targets)
    # Four standard deviations of a share of so many rows.
    assert task.scores(task.fit(x), x).value < chance + 4 * (0.25 / len(task.targets)) ** 0.5


def test_a_constant_tells_the_most_frequent_class_of_the_rows_that_were_fitted_on(tasks):
    task = tasks["phone"]
    x = torch.full((len(task.speech), 5), 0.7)
    found, floor = task.scores(task.fit(x), x), task.floor()
    assert (found.numerator == floor.numerator).all()
    assert task.labels[0] == "aa"  # made the most frequent one
    assert floor.numerator.sum() == (task.targets == 0).sum()


def test_a_constant_tells_the_median_of_the_sound(tasks):
    task = tasks["mel"]
    x = torch.ones(len(task.speech), 3)
    found, floor = task.scores(task.fit(x), x).value, task.floor().value
    assert found == pytest.approx(floor, rel=0.02)
    assert not task.floor().higher_is_better


def test_the_sound_is_read_from_itself(tasks):
    task = tasks["mel"]
    assert task.scores(task.fit(task.targets), task.targets).value < 0.6 * task.floor().value
    utterance = task.speech.corpus[3]
    first = task.speech.begins[utterance.id]
    mel = log_mel(utterance.read())
    np.testing.assert_array_equal(task.targets[first + 7].numpy(), mel[14:16].ravel())


@pytest.mark.parametrize("name", ["phone", "speaker"])
def test_permuted_labels_teach_nothing_even_where_the_true_ones_stand_in_the_frames(tasks, name):
    task = tasks[name]
    x = one_hot(task, task.targets)
    control = task.permuted()
    assert torch.equal(control.learnt.sort().values, task.targets.sort().values)
    assert not torch.equal(control.learnt, task.targets)
    assert torch.equal(control.targets, task.targets)
    assert control.scores(control.fit(x), x).value < task.floor().value + 0.12


def test_phones_are_tested_on_speakers_that_were_not_learnt_from(tasks):
    task = tasks["phone"]
    speakers = np.array([u.speaker for u in task.speech.corpus])[task.utterances]
    for fold in range(task.count):
        held = (task.folds == fold).numpy()
        assert held.any()
        assert not set(speakers[held]) & set(speakers[~held])


@pytest.mark.parametrize("name", ["speaker", "speaker-utterance"])
def test_speakers_are_tested_on_other_utterances_of_the_speakers_that_were_learnt_from(tasks, name):
    task = tasks[name]
    for fold in range(task.count):
        held = task.folds == fold
        assert set(task.targets[held].tolist()) <= set(task.targets[~held].tolist())
        assert not set(task.utterances[held].tolist()) & set(task.utterances[~held].tolist())
        assert len(set(task.targets[held].tolist())) == 4


def test_two_utterances_of_a_speaker_suffice_for_three_folds():
    task = make_task("speaker", speech_of(corpus_of(speakers=3, each=2)))
    for fold in range(task.count):
        assert set(task.targets[task.folds == fold].tolist()) <= set(task.targets[task.folds != fold].tolist())


def test_a_speaker_with_one_utterance_is_left_out_and_counted():
    corpus = corpus_of(speakers=3, each=3)
    kept = corpus.subset([*[u.id for u in corpus if u.speaker != "s2"][:6], "u02"])
    task = make_task("speaker-utterance", speech_of(kept))
    assert task.labels == ("s0", "s1")
    assert (task.notes["speakers_with_one_utterance"], task.notes["utterances_left_out"]) == (1, 1)
    alone = task.scores(task.fit(noise_of(task.speech)), noise_of(task.speech))
    assert alone.denominator[list(alone.ids).index("u02")] == 0


def test_speakers_that_cannot_be_both_learnt_and_tested_are_refused():
    corpus = corpus_of(speakers=4, each=1)
    with pytest.raises(MeasureError, match="0 have two utterances or more, and 4 have one"):
        make_task("speaker", speech_of(corpus))


def test_rare_phones_and_pauses_are_left_out_and_counted():
    corpus = corpus_of(silence=True)
    first = corpus[0]
    tier = (*first.tiers["phone"][:-1], replace(first.tiers["phone"][-1], label="zh"))
    corpus = Corpus("rare", (replace(first, tiers={"phone": tier}), *corpus.utterances[1:]))
    task = make_task("phone", speech_of(corpus))
    assert task.labels == ("aa", "iy", "s", "t")
    assert (task.notes["labels_left_out"], task.notes["frames_left_out"]) == (1, 4)
    assert task.notes["frames_without_label"] == 4 * len(corpus)


def test_a_frame_has_the_label_in_which_its_centre_lies():
    speech = speech_of(corpus_of())
    assert speech.centres("u00")[:3].tolist() == [200, 520, 840]
    task = make_task("phone", speech)
    tier = speech.corpus[0].tiers["phone"]
    wanted = [next(x.label for x in tier if x.start <= centre < x.end) for centre in speech.centres("u00")]
    there = task.utterances == 0
    assert [task.labels[k] for k in task.targets[there]] == wanted
    centred = replace(speech, grid=Grid(HOP, 1040, -520))
    assert centred.centres("u00")[:3].tolist() == [0, 320, 640]


def test_a_corpus_without_phones_is_refused():
    corpus = corpus_of()
    bare = Corpus("bare", tuple(replace(u, tiers={}) for u in corpus))
    with pytest.raises(CorpusError, match="no tier 'phone'"):
        make_task("phone", speech_of(bare))


def test_one_label_is_too_few():
    corpus = corpus_of()
    same = tuple(
        replace(u, tiers={"phone": tuple(replace(x, label="aa") for x in u.tiers["phone"])}) for u in corpus
    )  # fmt: skip
    with pytest.raises(MeasureError, match="finds 1 label"):
        make_task("phone", speech_of(Corpus("same", same)))


def test_an_unknown_task_is_named_with_those_there_are():
    with pytest.raises(MeasureError, match="no task 'words'.*phone, speaker"):
        make_task("words", speech_of(corpus_of()))


def test_frozen_probes_miss_what_has_moved_and_trained_ones_find_it(tasks):
    task = tasks["phone"]
    x = one_hot(task, task.targets)
    moved = x.roll(1, dims=1)
    frozen = task.fit(x)
    assert task.scores(frozen, moved).value < 0.2
    assert task.scores(task.fit(moved), moved).value == 1


def test_same_seed_same_numbers(tasks):
    task = tasks["phone"]
    x = noise_of(task.speech)
    one, same, other = task.fit(x, seed=3), task.fit(x, seed=3), task.fit(x, seed=4)
    assert torch.equal(one(x, 0), same(x, 0))
    assert not torch.equal(one(x, 0), other(x, 0))
    assert task.scores(one, x).numerator.tolist() == task.scores(same, x).numerator.tolist()


def test_networks_of_other_folds_do_not_touch_each_other():
    x = torch.randn(60, 5, generator=torch.Generator().manual_seed(0))
    y = (x[:, 0] > 0).long()
    first = torch.arange(0, 40)
    one = fit_readouts(x, y, [first, torch.arange(20, 60)], 2, steps=30)
    other = fit_readouts(x, y, [first, torch.arange(10, 25)], 2, steps=30)
    torch.testing.assert_close(one(x, 0), other(x, 0), rtol=1e-5, atol=1e-6)
    assert not torch.allclose(one(x, 1), other(x, 1))


def test_inputs_are_standardised_by_the_rows_that_each_network_was_fitted_on():
    """Rows that are held out lend a probe neither their mean nor their spread."""
    draw = torch.Generator().manual_seed(2)
    x = torch.randn(40, 3, generator=draw) * torch.linspace(1, 5, 40)[:, None] + torch.arange(40.0)[:, None]
    rows = [torch.arange(25), torch.arange(15, 40)]
    fitted = fit_readouts(x, torch.arange(40) % 2, rows, 2, steps=3)
    for fold, own in enumerate(rows):
        mean, deviation = x[own].mean(0), x[own].std(0, correction=0)
        (first, bias), (last, offset) = fitted.layers
        inputs = ((x - mean) / deviation).clamp(-10, 10)
        wanted = torch.relu(inputs @ first[fold] + bias[fold]) @ last[fold] + offset[fold]
        torch.testing.assert_close(fitted(x, fold), wanted, rtol=1e-4, atol=1e-4)


def test_a_linear_probe_finds_the_slope_of_a_line():
    x = torch.randn(400, 2, generator=torch.Generator().manual_seed(1))
    y = torch.stack([2 * x[:, 0] - x[:, 1], x.sum(1) + 3], dim=1)
    fitted = fit_readouts(x, y, [torch.arange(300)], hidden=0, steps=600, rate=0.05)
    assert float((fitted(x[300:], 0) - y[300:]).abs().max()) < 0.1


def test_the_constant_answer():
    found = constant(torch.tensor([0, 0, 2]), 3).exp()
    torch.testing.assert_close(found, torch.tensor([3.0, 1.0, 2.0]) / 6)
    assert constant(torch.tensor([[1.0], [5.0], [2.0]]), None).tolist() == [2.0]


@pytest.mark.parametrize(
    ("x", "y", "rows", "says"),
    [
        (torch.zeros(4, 2), torch.zeros(3, dtype=torch.long), [torch.arange(3)], "shapes disagree"),
        (torch.zeros(4, 2), torch.zeros(4, dtype=torch.long), [torch.arange(0)], "no row to be fitted on"),
        (torch.full((4, 2), torch.nan), torch.zeros(4, dtype=torch.long), [torch.arange(4)], "not finite"),
        (torch.zeros(4, 2), torch.full((4,), 7), [torch.arange(4)], "between 7 and 7 for 2 classes"),
    ],
)
def test_what_cannot_be_fitted_is_refused(x, y, rows, says):
    with pytest.raises(MeasureError, match=says):
        fit_readouts(x, y, rows, 2)


def test_frames_of_other_speech_are_refused(tasks):
    task = tasks["phone"]
    with pytest.raises(MeasureError, match="frames for speech of"):
        task.inputs(torch.zeros(len(task.speech) + 1, 3))
    fitted = task.fit(noise_of(task.speech))
    with pytest.raises(MeasureError, match="for probes of 8 dimensions"):
        task.scores(fitted, torch.zeros(len(task.speech), 3))
    with pytest.raises(MeasureError, match="not finite"):
        task.scores(fitted, torch.full((len(task.speech), 8), torch.inf))


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> SpeechModel:
    from otoscope.models.loading import load

    return load(CASES[0].write(tmp_path_factory.mktemp("model")))


def test_speech_is_chosen_by_name_and_evenly_over_speakers(model):
    corpus = corpus_of(speakers=3, each=6)
    seconds = 6.5 * corpus[0].seconds
    chosen = probed_speech(model, corpus, seconds=seconds)
    turned = probed_speech(model, Corpus("arrays", corpus.utterances[::-1]), seconds=seconds)
    ids = [u.id for u in chosen.corpus]
    assert ids == [u.id for u in turned.corpus] == sorted(ids)
    assert sorted(u.speaker for u in chosen.corpus) == ["s0", "s0", "s1", "s1", "s2", "s2"]
    assert chosen.left_out == 12
    assert ids != [u.id for u in probed_speech(model, corpus, seconds=seconds, seed=1).corpus]
    assert chosen.stream == model.anatomy.streams[-1]
    assert len(chosen) == sum(model.frontend.frames(u.n_samples) for u in chosen.corpus)


def test_speech_that_does_not_fit_is_refused(model):
    with pytest.raises(MeasureError, match=r"1 utterance\(s\).*fit into 1 seconds"):
        probed_speech(model, corpus_of(frames=40), seconds=1)
    with pytest.raises(MeasureError, match="No probe can be put on stream 'conv.1'"):
        probed_speech(model, corpus_of(), stream="conv.1")
