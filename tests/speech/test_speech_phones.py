import pytest
from hypothesis import given
from hypothesis import strategies as st

from otoscope.errors import AlignmentError
from otoscope.speech.phones import ARPABET_39, PHONE_SETS, SILENCES, TIMIT_61, fold_phone, is_phone


def test_sizes():
    assert len(ARPABET_39) == 39
    assert len(TIMIT_61) == 61
    assert {fold_phone(p, "arpabet39") for p in TIMIT_61} - {None} == ARPABET_39 | {"sil"}
    assert {fold_phone(p, "arpabet61") for p in TIMIT_61} == TIMIT_61 - {"pau", "epi", "h#"} | {"sil"}
    # Lee and Hon's 39 classes hold one silence; q is left out.
    assert len({fold_phone(p, "timit39") for p in TIMIT_61} - {None}) == 39


@pytest.mark.parametrize(
    ("label", "small", "large", "lee_hon"),
    [
        ("AA1", "aa", "aa", "aa"),
        ("AO0", "ao", "ao", "aa"),
        ("ZH", "zh", "zh", "sh"),
        ("ax-h", "ah", "ax-h", "ah"),
        ("axr", "er", "axr", "er"),
        ("ix", "ih", "ix", "ih"),
        ("hv", "hh", "hv", "hh"),
        ("nx", "n", "nx", "n"),
        ("eng", "ng", "eng", "ng"),
        ("ux", "uw", "ux", "uw"),
        ("tcl", "sil", "tcl", "sil"),
        ("dx", "d", "dx", "dx"),
        ("q", None, "q", None),
        ("h#", "sil", "sil", "sil"),
        ("ER2_B", "er", "er", "er"),
        ("SIL_S", "sil", "sil", "sil"),
        (" t ", "t", "t", "t"),
    ],
)
def test_folding(label, small, large, lee_hon):
    assert fold_phone(label, "arpabet39") == small
    assert fold_phone(label, "arpabet61") == large
    assert fold_phone(label, "timit39") == lee_hon


@pytest.mark.parametrize("phone_set", [*PHONE_SETS, None])
@pytest.mark.parametrize("label", ["", "sil", "SIL", "sp", "spn", "<eps>", " "])
def test_silences(label, phone_set):
    assert fold_phone(label, phone_set) == "sil"


@given(st.sampled_from(sorted(TIMIT_61 | SILENCES)), st.sampled_from(PHONE_SETS))
def test_folding_twice_equals_once(label, phone_set):
    once = fold_phone(label, phone_set)
    assert once is None or fold_phone(once, phone_set) == once


def test_unknown_phone_is_named():
    with pytest.raises(AlignmentError, match="'ʃ' is not an ARPAbet phone"):
        fold_phone("ʃ")
    with pytest.raises(AlignmentError, match=r"phone_set=None \(--phone-set none\)"):
        fold_phone("ʃ")
    assert fold_phone("ʃ", None) == "ʃ"
    assert fold_phone("AA1", None) == "AA1"
    with pytest.raises(AlignmentError, match="no phone set 'ipa'"):
        fold_phone("aa", "ipa")


def test_is_phone():
    assert is_phone("AH0")
    assert is_phone("")
    assert not is_phone("the")
