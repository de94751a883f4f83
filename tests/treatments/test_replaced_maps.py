"""Folders of models whose maps are replaced: without queries and keys, and those that hold them still."""

import hashlib
import json

import pytest
from safetensors.torch import load_file, save_file

from otoscope.errors import CheckpointError
from otoscope.models import load
from otoscope.surgery import CutHeads, ReplaceMap, fingerprint
from otoscope.surgery.applying import edited
from otoscope.treatments import PruneHeads, ReplaceAttention, save_treated, treated, undone
from tests.models.small import CASES
from tests.surgery.cases import run, same_bits, speech

CORPUS = speech(0.3, 0.45)
STEPS = [PruneHeads("layer.2-3.head.0"), ReplaceAttention("layer.1", "uniform"), ReplaceAttention("layer.3", "layer")]
EDITS = [CutHeads("layer.2-3.head.0"), ReplaceMap("layer.1", "uniform"), ReplaceMap("layer.3", "layer")]
WEIGHTS = "treated.safetensors"


def rewritten(folder, state):
    """Puts other weights in a folder, with their digest."""
    save_file(state, folder / WEIGHTS, metadata={"format": "pt"})
    note = json.loads((folder / "treatment.json").read_text())
    note["sha256"][WEIGHTS] = hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest()
    (folder / "treatment.json").write_text(json.dumps(note))


@pytest.mark.parametrize("name", ["wav2vec2-group", "wavlm-ctc-stable", "parakeet"])
def test_a_folder_with_queries_and_keys_is_read_as_one_without(name, tmp_path):
    model = load(next(case for case in CASES if case.name == name).build().eval(), name=name)
    made = treated(model, STEPS)
    save_treated(made, tmp_path / "m")
    stored = load_file(tmp_path / "m" / WEIGHTS)
    whole = {key: value.contiguous() for key, value in edited(model.source, EDITS).state_dict().items()}
    assert len(stored) < len(whole)
    rewritten(tmp_path / "m", whole)
    again = load(tmp_path / "m")
    assert same_bits(again.source.state_dict(), made.source.state_dict())
    assert same_bits(run(again, CORPUS).streams, run(made, CORPUS).streams)
    assert fingerprint(again.source) == fingerprint(made.source)
    assert fingerprint(undone(again, model).source) == fingerprint(model.source)
    whole["x"] = next(iter(whole.values())).clone()
    rewritten(tmp_path / "m", whole)
    with pytest.raises(CheckpointError, match="do not fit .*: x"):
        load(tmp_path / "m")
