"""A teacher: what is measured, in closed form; what a student learns from it; and what does not fit."""

import copy

import numpy as np
import pytest
import torch

from otoscope.errors import TrainingError
from otoscope.models.loading import load
from otoscope.models.model import SpeechModel
from otoscope.models.recogniser import Recogniser
from otoscope.models.vocabulary import Vocabulary
from otoscope.training.ctc import Ctc, CtcSettings
from otoscope.training.ctc_head import with_ctc_head
from otoscope.training.teacher import Teacher, TeacherSettings
from otoscope.treatments import RemoveBlocks, treated
from tests.models.small import CASES
from tests.training.small_training import spelt_speech

VOCABULARY = Vocabulary(("<pad>", "|", "a", "b", "c", "d"), 0)
CORPUS = spelt_speech(4)
PLAIN = CtcSettings(mask=0, freeze_convolutions=False)


def recogniser(name="wavlm-group", seed=0, vocabulary=VOCABULARY):
    ready = load(next(case for case in CASES if case.name == name).build())
    made = with_ctc_head(ready, vocabulary, seed)
    return Recogniser(SpeechModel(made, ready.family, ready.frontend, name), vocabulary)


def without(one, layer):
    """A copy of a recogniser without one of its layers, for training."""
    small = treated(one.model, [RemoveBlocks(f"layer.{layer}")])
    return Recogniser(small, one.vocabulary)


def batch_of(made, seed=0):
    batch = made.assemble(CORPUS.utterances, [u.read() for u in CORPUS], np.random.default_rng(seed))
    return {**batch, "progress": torch.tensor(0.0)}


NAMES = [
    case.name for case in CASES if case.name in ("wavlm-group", "hubert-group", "wav2vec2-conformer", "parakeet-ctc")
]


@pytest.mark.parametrize("name", NAMES)
def test_a_copy_of_the_teacher_is_at_no_distance_from_it(name):
    teacher = recogniser(name)
    student = Recogniser(
        SpeechModel(copy.deepcopy(teacher.model.source), teacher.model.family, teacher.model.frontend, name), VOCABULARY
    )
    made = Ctc(student, PLAIN, teacher=Teacher(teacher, student)).eval()
    found = made(**batch_of(made))
    assert found["teacher_outputs"].item() == pytest.approx(0, abs=1e-6)
    assert found["teacher_layers"].item() == pytest.approx(0, abs=1e-6)
    assert found["loss"].item() == pytest.approx(found["ctc"].item(), abs=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_no_layer_is_dropped_where_layers_are_followed(name):
    teacher, student = recogniser(name), recogniser(name, seed=1)
    for owner in (student.model.encoder, student.model.encoder.config):
        if hasattr(owner, "layerdrop"):
            owner.layerdrop = 0.999
    made = Ctc(student, PLAIN, teacher=Teacher(teacher, student)).train()
    assert torch.isfinite(made(**batch_of(made))["teacher_layers"])


def test_the_distances_are_those_of_their_formulas_over_valid_frames():
    teacher = recogniser()
    student = without(teacher, 2)
    followed = Teacher(teacher, student, TeacherSettings(outputs=0.5, layers=2.0))
    assert followed.shared == ("layer.1", "layer.3")
    followed.shared = ("layer.1",)
    draw = torch.Generator().manual_seed(0)
    scores = torch.log_softmax(torch.randn(2, 9, 6, generator=draw), -1)
    states = torch.randn(2, 9, 16, generator=draw)
    frames = torch.tensor([9, 5])
    logits, theirs = torch.randn(2, 9, 6, generator=draw), torch.randn(2, 9, 16, generator=draw)

    class Layer(torch.nn.Module):
        def forward(self):
            return (theirs,)

    class Said(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1))
            self.wavlm = torch.nn.Module()
            self.wavlm.encoder = torch.nn.Module()
            self.wavlm.encoder.layers = torch.nn.ModuleList([Layer()])

        def forward(self):
            self.wavlm.encoder.layers[0]()
            return type("Out", (), {"logits": logits})

    followed._module = Said()
    found = followed.losses({}, scores, {"layer.1": states}, frames, frames)
    log_p = torch.log_softmax(logits, -1)
    rows = [(b, t) for b in range(2) for t in range(int(frames[b]))]
    divergence = np.mean([float((log_p[b, t].exp() * (log_p[b, t] - scores[b, t])).sum()) for b, t in rows])
    own = np.stack([states[b, t].numpy() for b, t in rows])
    wanted = np.stack([theirs[b, t].numpy() for b, t in rows])
    apart = ((own - wanted) ** 2).mean() / wanted.var(0).mean()
    assert found["outputs"].item() == pytest.approx(divergence, rel=1e-5)
    assert found["layers"].item() == pytest.approx(apart, rel=1e-5)
    assert found["loss"].item() == pytest.approx(0.5 * divergence + 2 * apart, rel=1e-5)


@pytest.mark.parametrize(("followed", "weights", "rate"), [("outputs", (100, 0), 1e-4), ("layers", (0, 100), 2e-3)])
def test_a_student_comes_nearer_and_the_teacher_stays_as_it_is(followed, weights, rate):
    teacher = recogniser()
    with torch.no_grad():  # so that there is something to follow
        teacher.model.source.lm_head.weight.mul_(40)
    before = {name: value.clone() for name, value in teacher.model.source.state_dict().items()}
    student = without(teacher, 1)
    made = Ctc(student, PLAIN, teacher=Teacher(teacher, student, TeacherSettings(*weights))).eval()  # without dropout
    assert not any("teacher" in name for name in made.state_dict())
    optimiser = torch.optim.Adam([one for one in made.parameters() if one.requires_grad], lr=rate)
    batch, distances = batch_of(made), []
    for _ in range(25):
        found = made(**batch)
        found["loss"].backward()
        optimiser.step()
        optimiser.zero_grad()
        distances.append(found[f"teacher_{followed}"].item())
    assert distances[-1] < 0.6 * distances[0], distances[::6]
    assert all(torch.equal(value, before[name]) for name, value in teacher.model.source.state_dict().items())
    assert not any(one.grad is not None for one in teacher.model.source.parameters())


def test_what_is_followed_is_part_of_the_settings():
    teacher = recogniser()
    told = Ctc(without(teacher, 1), PLAIN, teacher=Teacher(teacher, without(teacher, 1))).describe()
    assert told["teacher"] == teacher.model.fingerprint()
    assert (told["teacher_outputs"], told["teacher_layers"]) == (3.0, 1.0)


def test_teachers_that_do_not_fit_are_refused():
    student = recogniser()
    other = Vocabulary(("<pad>", "|", "a", "b", "d", "c"), 0)
    with pytest.raises(TrainingError, match="other tokens"):
        Teacher(recogniser(vocabulary=other), student)
    with pytest.raises(TrainingError, match="other input"):
        Teacher(recogniser("parakeet-ctc"), student)
    for weights in ((0.0, 0.0), (-1.0, 1.0), (float("nan"), 1.0)):
        with pytest.raises(TrainingError, match="weights of zero or more"):
            TeacherSettings(*weights)
