"""Every utterance goes to one client, whatever the order of the corpus; what cannot be dealt is named."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from otoscope.errors import FederationError
from otoscope.federation.partition import partition
from otoscope.speech.corpus import Corpus


def _corpus(lengths, speakers) -> Corpus:
    """Utterances of so many hundredths of a second."""
    return Corpus.from_arrays([np.zeros(160 * n) for n in lengths], speakers=list(speakers), name="made up")


def _even(utterances: int, speakers: int) -> Corpus:
    return _corpus([10] * utterances, [f"v{k % speakers:02d}" for k in range(utterances)])


def _ids(share) -> list[str]:
    return [one.id for one in share.utterances]


spoken = st.lists(st.tuples(st.integers(3, 60), st.sampled_from("abcdefgh")), min_size=1, max_size=30)


@given(spoken, st.sampled_from(["speaker", "speaker:2", "dirichlet:2:5"]), st.integers(0, 3), st.randoms())
def test_every_utterance_has_one_client_and_the_order_does_not_count(spoken, how, seed, shuffle):
    corpus = _corpus(*zip(*spoken, strict=True))
    if how == "speaker:2" and len(corpus.speakers) < 2:
        with pytest.raises(FederationError, match=r"too few speakers \(1\) for 2 clients"):
            partition(corpus, how, seed)
        return
    try:
        shares = partition(corpus, how, seed)
    except FederationError:  # a draw may leave a client without anything; clients of whole speakers always hold some
        event("a client holds nothing")
        if how != "dirichlet:2:5":
            raise
        return
    assert sorted(one for share in shares for one in _ids(share)) == sorted(one.id for one in corpus)
    assert all(len(share.utterances) for share in shares)
    assert [share.client for share in shares] == sorted(share.client for share in shares)
    mixed = list(corpus)
    shuffle.shuffle(mixed)
    assert partition(replace(corpus, utterances=tuple(mixed)), how, seed) == shares


def test_every_speaker_is_a_client():
    shares = partition(_corpus([10, 20, 30], ["bob", "ann", "bob"]), "speaker")
    assert [(share.client, _ids(share)) for share in shares] == [("ann", ["0001"]), ("bob", ["0000", "0002"])]
    assert shares[0].utterances.name == "made up of ann"


def test_grouped_speakers_stay_whole_and_clients_are_balanced():
    # Longest first to the shortest: 8 | 7, then 6 to 7, 5 to 8, and 4 to either of 13.
    corpus = _corpus([80, 70, 60, 50, 40], "abcde")
    shares = partition(corpus, "speaker:2")
    assert [share.client for share in shares] == ["client.1", "client.2"]
    assert sorted("".join(share.utterances.speakers) for share in shares) in (["ad", "bce"], ["ade", "bc"])


@given(st.lists(st.integers(3, 60), min_size=3, max_size=12), st.integers(1, 3))
def test_no_client_has_more_than_a_speaker_above_the_least(lengths, clients):
    shares = partition(_corpus(lengths, [f"v{k}" for k in range(len(lengths))]), f"speaker:{clients}")
    seconds = [share.utterances.seconds for share in shares]
    assert max(seconds) - min(seconds) <= max(lengths) / 100 + 1e-9


def test_names_of_many_clients_sort_in_their_order():
    shares = partition(_even(24, 12), "speaker:12")
    assert [shares[k].client for k in (0, 1, -1)] == ["client.01", "client.02", "client.12"]


def _concentrations(corpus, how) -> float:
    """Mean over speakers of the largest share that one client has of a speaker."""
    shares = partition(corpus, how)
    held = [[sum(one.speaker == v for one in share.utterances) for share in shares] for v in corpus.speakers]
    return float(np.mean([max(one) / sum(one) for one in held]))


def test_a_low_concentration_leaves_speakers_with_one_client_and_a_high_one_makes_clients_alike():
    corpus = _even(400, 20)
    low, middle, high = (_concentrations(corpus, f"dirichlet:4:{c}") for c in (0.01, 0.5, 10_000))
    assert low > 0.95
    assert 0.4 < middle < 0.85
    assert high == pytest.approx(0.25, abs=0.01)


def test_shares_are_those_of_the_dirichlet_distribution():
    """The second moment of a share is (C + 1) / (K (K C + 1)) for the symmetric distribution."""
    corpus = _even(2000, 40)
    shares = partition(corpus, "dirichlet:4:0.5")
    held = np.array([[sum(one.speaker == v for one in share.utterances) for share in shares] for v in corpus.speakers])
    share = held / held.sum(1, keepdims=True)
    assert float((share**2).mean()) == pytest.approx(1.5 / (4 * 3), rel=0.15)


def test_a_speakers_shares_do_not_depend_on_who_else_speaks():
    both = _even(80, 2)
    alone = both.subset(lambda one: one.speaker == "v00")
    of_both = partition(both, "dirichlet:2:1", 3)
    of_one = partition(alone, "dirichlet:2:1", 3)
    for some, own in zip(of_both, of_one, strict=True):
        assert [one.id for one in some.utterances if one.speaker == "v00"] == _ids(own)


def test_the_seed_decides():
    corpus = _even(40, 4)
    one, again, other = (partition(corpus, "dirichlet:4:1", seed) for seed in (0, 0, 1))
    assert one == again
    assert one != other
    of_speakers = [partition(_even(4, 4), "speaker:2", seed) for seed in range(8)]
    assert any(found != of_speakers[0] for found in of_speakers)


def test_a_concentration_that_underflows_leaves_a_speaker_with_one_client():
    shares = partition(_even(400, 40), "dirichlet:2:1e-300")
    for speaker in {one.speaker for share in shares for one in share.utterances}:
        assert sum(any(one.speaker == speaker for one in share.utterances) for share in shares) == 1


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ("speakers", "no partition 'speakers'"),
        ("", "no partition ''"),
        ("speaker:2:3", "no partition"),
        ("dirichlet:2", "no partition"),
        ("speaker:0", "no number of clients"),
        ("speaker:two", "no number of clients"),
        ("dirichlet:2:no", "no concentration"),
        ("dirichlet:2:nan", "no concentration"),
        ("dirichlet:2:0", "no concentration"),
        ("speaker:5", r"too few speakers \(4\) for 5 clients"),
        ("dirichlet:100:1", "leaves none to .* of 100 clients"),
    ],
)
def test_what_cannot_be_dealt_is_named(how, told):
    with pytest.raises(FederationError, match=told) as error:
        partition(_even(12, 4), how)
    assert error.value.cure


def test_speech_without_speakers_and_no_speech_are_named():
    with pytest.raises(FederationError, match="1 of 2 utterances of corpus made up have no speaker, the first '0001'"):
        partition(_corpus([10, 10], ["ann", None]), "speaker")
    with pytest.raises(FederationError, match="holds no utterance"):
        partition(Corpus("empty", ()), "speaker")
