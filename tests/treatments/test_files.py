"""Files of stored models: who may read them."""

import os

import pytest

from otoscope.errors import TreatmentError
from otoscope.models import load
from otoscope.speech.locking import alone_in
from otoscope.training.folders import put_model
from otoscope.treatments import PruneHeads, RemoveBlocks, save_treated, treated
from otoscope.treatments.files import put_whole
from tests.models.small import CASES


@pytest.fixture(params=[0o022, 0o077, 0o027])
def umask(request):
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


@pytest.mark.parametrize("treatment", [PruneHeads("layer.1.head.0"), RemoveBlocks("layer.1")], ids=["own", "stock"])
def test_files_of_a_treated_model_follow_the_umask(umask, treatment, tmp_path):
    model = load(next(case for case in CASES if case.name == "wav2vec2-group").build().eval())
    save_treated(treated(model, [treatment]), tmp_path / "model")
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "model").iterdir()}
    assert len(modes) == 4
    assert set(modes.values()) == {0o666 & ~umask}


def test_one_process_at_a_time_writes_to_a_folder(tmp_path):
    with alone_in(tmp_path), pytest.raises(TreatmentError, match="Another process writes a model") as error:
        put_whole(lambda place: None, tmp_path)
    assert error.value.cure
    assert not list(tmp_path.iterdir())


def test_files_of_a_trained_model_follow_the_umask(umask, tmp_path):
    source = next(case for case in CASES if case.name == "wav2vec2-ctc").build()
    put_model(source.save_pretrained, tmp_path / "model")
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "model").iterdir()}
    assert "model.safetensors" in modes
    assert set(modes.values()) == {0o666 & ~umask}
