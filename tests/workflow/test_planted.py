"""Three planted faults are diagnosed as what they are, and a sound model as sound: the embedded recogniser, edited."""

import pytest

from otoscope.embedded import MODELS
from otoscope.evaluation import CTCLoss
from otoscope.interventions.blocks import block_interventions, block_verdicts, drawn_blocks
from otoscope.interventions.churn import churn
from otoscope.interventions.criticality.resets import criticality
from otoscope.measures.blocks.pattern import BlockPattern
from otoscope.models.recogniser import Recogniser, load_recogniser
from otoscope.speech.batching import read_batches
from otoscope.surgery import ReplaceMap, Reset, apply
from otoscope.workflow.corpora import read_corpus

UNIFORM, COPY, UNTRAINED = 3, 6, 8  # layers of the three faults
INITIAL = MODELS["embedded:wavlm-initial"]


@pytest.fixture(scope="module")
def speech():
    """Two utterances of each of nine speakers."""
    corpus = read_corpus("embedded")
    spoken = {speaker: [u.id for u in corpus if u.speaker == speaker][:2] for speaker in corpus.speakers}
    return corpus.subset([name for names in spoken.values() for name in names])


@pytest.fixture(scope="module")
def little(speech):
    """One of them: enough where a model is run again for every layer."""
    return speech.subset([next(u.id for u in speech if u.speaker == speaker) for speaker in speech.speakers])


@pytest.fixture(scope="module")
def sound():
    return load_recogniser("embedded:wavlm")


@pytest.fixture(scope="module")
def faulty(sound):
    faults = [
        ReplaceMap(f"layer.{UNIFORM}", "uniform"),
        ReplaceMap(f"layer.{COPY}", "layer", source=COPY - 1),
        Reset(f"layer.{UNTRAINED}", INITIAL),
    ]
    return Recogniser(apply(sound.model, faults), sound.vocabulary)


def abnormal_blocks(recogniser, corpus):
    """Layer -> reasons for which its pattern is abnormal, none where it is normal; and the patterns found."""
    measure = BlockPattern()
    measure.prepare(recogniser.model.anatomy, corpus, 0)
    for batch in read_batches(corpus, 30.0):
        measure.update(
            recogniser.model.capture(batch.utterances, batch.samples, streams=(), reductions=measure.reductions)
        )
    rows = measure.compute().rows
    judged = {row.layer: row for row in rows if row.measure == "abnormality"}
    assert {row.label for row in judged.values()} <= {"normal", "abnormal"}
    reasons = {layer: (row.target or "").split("; ") for layer, row in judged.items() if row.label == "abnormal"}
    found = {(row.layer, row.target) for row in rows if row.measure == "degenerate-pattern" and row.label == "yes"}
    return dict.fromkeys(judged, ()) | reasons, found


def test_a_sound_model_is_normal_in_every_block(sound, speech):
    reasons, patterns = abnormal_blocks(sound, speech)
    assert reasons == dict.fromkeys(range(1, 9), ())
    assert patterns == set()


def test_a_uniform_block_and_a_copied_map_are_abnormal_and_all_other_blocks_are_normal(faulty, speech):
    reasons, patterns = abnormal_blocks(faulty, speech)
    assert "uniform" in reasons[UNIFORM]
    assert "neighbour-copy" in reasons[COPY]
    assert {layer for layer, why in reasons.items() if why} == {UNIFORM, COPY}
    assert {(UNIFORM, "uniform"), (COPY, "neighbour-copy")} <= patterns


def test_neither_fault_is_called_harmful_or_needed(faulty, little):
    abnormal = {layer: layer in (UNIFORM, COPY) for layer in range(1, 9)}
    found = block_interventions(faulty, little, [CTCLoss()], layers=drawn_blocks(abnormal, 2))
    assert found.notes["block-intervention"]["changes_nothing"] == [
        f"layer.{UNIFORM} uniform",
        f"layer.{COPY} neighbour",
    ]
    judged = block_verdicts(abnormal, found)
    labels = {row.layer: row.label for row in judged.rows if row.measure == "block-verdict"}
    assert labels == {layer: "dispensable" if flagged else "normal" for layer, flagged in abnormal.items()}
    control = next(row for row in judged.rows if row.measure == "block-control" and row.other == "any")
    assert control.n == 2
    assert "abnormal blocks are harmful or dispensable" in judged.notes["block-control"]["says"]["ctc-loss"]


def test_the_layer_that_was_never_trained_is_ambient_to_the_digit_and_no_other_is(faulty, sound, little):
    for recogniser, unchanged in ((faulty, {f"layer.{UNTRAINED}"}), (sound, set())):
        found = criticality(recogniser, little, CTCLoss(), modes=["re-initialise"], initial=str(INITIAL))
        rows = {row.stream: row for row in found.rows if row.measure == "criticality"}
        assert set(rows) == {f"layer.{layer}" for layer in range(1, 9)}
        assert {name for name, row in rows.items() if row.value == 0} == unchanged
        assert set(found.notes["criticality"]["unchanged"].get("re-initialise", ())) == unchanged
        assert {name for name, row in rows.items() if row.label == "ambient"} == unchanged
        moved = {
            row.stream: row.value for row in churn(recogniser.model, initial=str(INITIAL)).rows if row.target == "rms"
        }
        assert {name for name, value in moved.items() if value == 0} == unchanged
