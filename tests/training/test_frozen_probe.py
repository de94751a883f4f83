"""A frozen probe is a metric: it gives for any stretch of the speech what it gives for the whole."""

import numpy as np
import pytest
import torch

from otoscope.errors import EvaluationError
from otoscope.interventions.leave_one_out import leave_one_out
from otoscope.interventions.probed import features_of
from otoscope.models.loading import load
from otoscope.speech.corpus import Corpus
from otoscope.surgery import Gate, apply
from otoscope.training.probes import TASKS, FrozenProbe, make_task, probed_speech
from tests.models.small import CASES
from tests.training.probe_material import corpus_of, noise_of, quick, speech_of


@pytest.fixture(scope="module")
def examined(tmp_path_factory):
    model = load(CASES[0].write(tmp_path_factory.mktemp("model")))
    speech = probed_speech(model, corpus_of(speakers=3, each=2, frames=20, silence=True))
    return model, speech, next(features_of(model, speech)([()]))


@pytest.mark.parametrize("name", list(TASKS))
def test_a_part_of_the_rows_is_scored_as_in_the_whole(name):
    speech = speech_of(corpus_of(silence=True))
    task = quick(make_task(name, speech))
    x = noise_of(speech)
    fitted = task.fit(x)
    whole = task.scores(fitted, x)
    ids = {"u03", "u08", "u14"}
    part = task.part(ids)
    frames = torch.cat([x[speech.begins[one] :][: speech.frames[one]] for one in sorted(ids)])
    found, wanted = part.scores(fitted, frames), whole.subset(tuple(sorted(ids)))
    assert found.ids == wanted.ids
    np.testing.assert_allclose(found.numerator, wanted.numerator, rtol=1e-5)
    assert found.denominator.tolist() == wanted.denominator.tolist()


@pytest.mark.parametrize("name", ["phone", "speaker-utterance"])
def test_the_metric_gives_the_scores_of_the_task(examined, name):
    model, speech, x = examined
    task = quick(make_task(name, speech))
    probe = FrozenProbe(task, task.fit(x))
    wanted = task.scores(probe.readouts, x)
    ids = tuple(u.id for u in speech.corpus)[::-1]
    turned = Corpus("turned", tuple(speech.corpus[one] for one in ids))
    found = probe.values(model, turned)
    assert found.ids == ids
    assert found.metric == f"probe-{name}"
    assert found.subset(wanted.ids).numerator.tolist() == wanted.numerator.tolist()


def test_heads_are_left_out_on_a_probe(examined):
    model, speech, x = examined
    task = quick(make_task("phone", speech))
    probe = FrozenProbe(task, task.fit(x))
    rows = leave_one_out(model, speech.corpus, probe).rows
    assert len(rows) == 12
    assert {row.target for row in rows} == {"probe-phone"}
    without = features_of(model, speech)([(Gate("layer.1.head.0"),)])
    change = task.scores(probe.readouts, next(without)).value - task.scores(probe.readouts, x).value
    assert rows[0].value == pytest.approx(change, abs=1e-12)
    direct = probe.values(apply(model, [Gate("layer.1.head.0")], share=True), speech.corpus).value
    assert direct - task.scores(probe.readouts, x).value == pytest.approx(change, abs=1e-12)


def test_other_probes_have_another_digest(examined):
    _, speech, x = examined
    task = quick(make_task("speaker", speech))
    one, same, other = (FrozenProbe(task, task.fit(x, seed)) for seed in (0, 0, 1))
    assert one.digest == same.digest != other.digest


def test_speech_without_a_fold_is_refused(examined):
    model, speech, x = examined
    task = quick(make_task("speaker", speech))
    probe = FrozenProbe(task, task.fit(x))
    stranger = Corpus.from_arrays([np.zeros(8000, np.float32)], ids=["stranger"])
    with pytest.raises(EvaluationError, match="'stranger' is none that the probe probe-speaker knows"):
        probe.values(model, stranger)
    with pytest.raises(EvaluationError, match="holds no utterance"):
        probe.values(model, Corpus("none", ()))
