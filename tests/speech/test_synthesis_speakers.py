"""Who speaks: enough voices, and none in two splits."""

import pytest

from otoscope.speech.synthesis.speakers import ACCENTS, SPLITS, speakers


@pytest.mark.parametrize("flite", [True, False])
def test_voices_of_dev_and_exam_are_never_in_train(flite):
    voices = {split: {(one.engine, one.variant.lower()) for one in speakers(split, flite)} for split in SPLITS}
    assert not voices["train"] & (voices["dev"] | voices["exam"])
    assert not voices["dev"] & voices["exam"]
    assert len(voices["train"]) >= 51
    assert len(speakers("train", flite)) >= 60


def test_every_speaker_has_a_name_and_a_voice_of_its_own():
    table = [one for split in SPLITS for one in speakers(split)]
    assert len({one.name for one in table}) == len(table)
    assert len({(one.engine, one.variant, one.accent, one.rate, one.pitch) for one in table}) == len(table)
    assert all(one.accent in ACCENTS for one in table if one.engine == "espeak-ng")
    assert all("-" not in one.name and one.name.lower() == one.name for one in table)


def test_every_accent_is_heard_about_equally_often():
    heard = [one.accent for one in speakers("train", flite=False)]
    assert all(abs(heard.count(accent) - len(heard) / 5) < 6 for accent in ACCENTS)


def test_without_flite_nobody_speaks_by_it():
    assert all(one.engine == "espeak-ng" for split in SPLITS for one in speakers(split, flite=False))
    assert {one.variant for one in speakers("train") if one.engine == "flite"} == {"slt", "awb", "kal16"}
    assert [one.name for one in speakers("exam") if one.engine == "flite"] == ["rms"]
