"""Log probabilities equal those of transformers' own CTC models, for every family that has one."""

import itertools
import json

import numpy as np
import pytest
import torch
import transformers as T
from hypothesis import given
from hypothesis import strategies as st

from otoscope.errors import AudioError, CaptureError, HeadError, VocabularyError
from otoscope.models import load
from otoscope.models.families import FAMILIES
from otoscope.models.recogniser import Recogniser, ctc_head, load_recogniser, recogniser_of
from otoscope.models.vocabulary import PIECE, Vocabulary
from tests.models.small import CASES

SECONDS = (0.7, 1.1, 0.5)
LETTERS = {"<pad>": 0, "<s>": 1, "</s>": 2, "<unk>": 3, "|": 4, "'": 5, **{chr(97 + k): 6 + k for k in range(26)}}
ADAPTED = dict(add_adapter=True, num_adapter_layers=2, output_hidden_size=24)
CTC = [case for case in CASES if case.model_class.endswith("ForCTC")]


def words(tokens=LETTERS, blank=0):
    return Vocabulary.from_mapping(tokens, blank)


def small(case):
    source = case.build()
    if case.family == "parakeet":  # whose blank is its last output by default
        source.config.pad_token_id = 0
    return source


def noise(seconds=SECONDS, seed=0):
    draw = np.random.default_rng(seed)
    return [0.1 * draw.standard_normal(int(16000 * s)).astype(np.float32) for s in seconds]


def librarys(recogniser, samples):
    """What the library's own CTC model gives for one utterance."""
    model = recogniser.model
    with torch.inference_mode():
        logits = model.source.eval()(**model.frontend.inputs([samples])).logits
    return torch.log_softmax(logits[0], -1)


def agree(recogniser, samples):
    batch = recogniser.log_probabilities(samples)
    for one, found in zip(samples, batch, strict=True):
        expected = librarys(recogniser, one)
        frames = recogniser.frames(len(one))
        assert found.shape == (frames, len(recogniser.vocabulary))
        # Parakeet's own output has a frame more than is valid.
        assert len(expected) - frames in ((0, 1) if recogniser.model.family.name == "parakeet" else (0,))
        assert torch.allclose(recogniser.log_probabilities([one])[0], expected[:frames], atol=1e-5)
        assert torch.allclose(found, expected[:frames], atol=5e-5)
        assert torch.allclose(found.exp().sum(-1), torch.ones(frames), atol=1e-5)


def test_every_family_with_a_ctc_class_has_a_case():
    with_ctc = {family.name for family in FAMILIES if any(head.endswith("ForCTC") for head in family.with_head)}
    assert with_ctc == {case.family for case in CTC}
    assert with_ctc == {family.name for family in FAMILIES if family.ctc_head is not None}


@pytest.mark.parametrize("case", CTC, ids=lambda case: case.name)
def test_equals_the_librarys_own_forward(case):
    agree(load_recogniser(small(case).train(), words()), noise())


@pytest.mark.parametrize(
    ("case", "kernel"),
    [(case, kernel) for case in CTC for kernel in (3, 2)
     if case.family in {"wav2vec2", "wavlm", "data2vec-audio", "wav2vec2-conformer", "wav2vec2-bert"}],
    ids=lambda value: getattr(value, "name", str(value)),
)  # fmt: skip
def test_adapters_shorten_time_and_do_not_mix_utterances(case, kernel):
    config = case.config()
    for name, value in {**ADAPTED, "adapter_kernel_size": kernel}.items():
        setattr(config, name, value)
    if case.family == "wav2vec2-bert":
        config.output_hidden_size = config.hidden_size
    torch.manual_seed(0)
    recogniser = load_recogniser(getattr(T, case.model_class)(config), words())
    agree(recogniser, noise())
    assert recogniser.frames(16000) < recogniser.model.frontend.frames(16000) / 3


def test_the_users_model_stays_as_it_is():
    source = small(CTC[0]).train()
    before = {name: value.clone() for name, value in source.state_dict().items()}
    load_recogniser(source, words()).log_probabilities(noise())
    assert all(module.training for module in source.modules())
    assert all(torch.equal(value, before[name]) for name, value in source.state_dict().items())


def test_a_change_of_the_head_shows():
    source = small(CTC[0])
    recogniser = load_recogniser(source, words())
    before = recogniser.log_probabilities(noise())[0]
    with torch.no_grad():
        source.lm_head.bias[7] += 100
    assert set(recogniser.log_probabilities(noise())[0].argmax(-1).tolist()) == {7}
    assert set(before.argmax(-1).tolist()) != {7}


def test_gradients_flow_through_the_encoder():
    model = load(small(CTC[0]))
    out = model.encode(noise())
    out.sum().backward()
    assert next(model.source.wav2vec2.encoder.layers.parameters()).grad is not None


def test_models_without_a_ctc_head_are_refused():
    for case in CASES:
        if case not in CTC:
            with pytest.raises(HeadError, match=f"{case.model_class}.* has no CTC head"):
                load_recogniser(case.build(), words())


def test_a_vocabulary_must_fit():
    source = small(CTC[0])
    with pytest.raises(VocabularyError, match="has 32 outputs and its vocabulary 2 tokens"):
        load_recogniser(source, {"<pad>": 0, "a": 1})
    with pytest.raises(VocabularyError, match="blank is 4 and that of Wav2Vec2ForCTC is 0"):
        load_recogniser(source, Vocabulary(tuple(LETTERS), blank=4))
    with pytest.raises(VocabularyError, match="nothing says what its outputs stand for"):
        load_recogniser(source)


@pytest.mark.parametrize(
    ("place", "told"),
    [("/no/such/place", "There is no folder /no/such/place"), ("empty", "The folder .*empty holds no tokenizer"),
     ("broken", "No vocabulary can be read beside the model in .*broken")],
)  # fmt: skip
def test_a_place_without_a_tokenizer_is_named(place, told, tmp_path):
    for name in ("empty", "broken"):
        (tmp_path / name).mkdir()
    (tmp_path / "broken" / "tokenizer.json").write_text("{")
    with pytest.raises(VocabularyError, match=told) as error:
        load_recogniser(small(CTC[0]), tmp_path / place)
    assert "vocab.json" in error.value.cure
    # The cure is one for whoever has no vocabulary to name, as `otoscope diagnose` has not.
    assert error.value.cure.startswith("Put the tokenizer that the model was trained with beside its weights")


def test_bad_samples_are_refused_by_name():
    recogniser = load_recogniser(small(CTC[0]), words())
    with pytest.raises(AudioError, match="Utterance 1 of the batch has 300 samples"):
        recogniser.log_probabilities([noise()[0], np.zeros(300, np.float32)])
    with pytest.raises(AudioError, match="Utterance 'x-1' has 300"):
        recogniser.log_probabilities([np.zeros(300, np.float32)], ["x-1"])
    with torch.no_grad():
        recogniser.model.source.lm_head.weight.fill_(float("nan"))
    with pytest.raises(CaptureError, match="not finite for utterance 'x-1'"):
        recogniser.log_probabilities(noise()[:1], ["x-1"])
    assert recogniser.log_probabilities([]) == []


def test_a_recogniser_is_given_back_as_it_is():
    recogniser = load_recogniser(small(CTC[0]), words())
    assert recogniser_of(recogniser) is recogniser
    other = recogniser_of(recogniser, {token.upper(): k for token, k in LETTERS.items()})
    assert other.vocabulary.case == "upper"
    assert isinstance(other, Recogniser)
    assert recogniser.parameters == recogniser.model.parameters + sum(
        p.numel() for p in ctc_head(other.model).parameters()
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("ctc")
    case = next(case for case in CASES if case.name == "wav2vec2-ctc")
    small(case).save_pretrained(place)
    (place / "vocab.json").write_text(json.dumps(LETTERS))
    T.Wav2Vec2CTCTokenizer(str(place / "vocab.json")).save_pretrained(place)
    return place


def test_the_vocabulary_beside_the_weights_is_read(folder):
    recogniser = load_recogniser(folder)
    vocabulary = recogniser.vocabulary
    assert vocabulary.tokens == tuple(LETTERS)
    assert (vocabulary.blank, vocabulary.delimiter, vocabulary.silent) == (0, "|", frozenset({1, 2, 3}))
    live = T.Wav2Vec2ForCTC.from_pretrained(folder)
    assert load_recogniser(live).vocabulary == vocabulary
    assert load_recogniser(small(CTC[0]), folder).vocabulary == vocabulary


@given(numbers=st.lists(st.integers(0, 31), max_size=40))
def test_spelling_is_the_librarys(folder, numbers):
    tokenizer = _TOKENIZERS.setdefault(folder, T.Wav2Vec2CTCTokenizer.from_pretrained(folder))
    vocabulary = Vocabulary.from_tokenizer(tokenizer, 32)
    collapsed = [k for k, _ in itertools.groupby(numbers)]
    spelt = tokenizer.decode(numbers, skip_special_tokens=False)
    for special in ("<s>", "</s>", "<unk>"):
        spelt = spelt.replace(special, "")
    assert vocabulary.decode(collapsed) == " ".join(spelt.split())


_TOKENIZERS: dict = {}


@given(text=st.text("abcxyz' \t", max_size=30))
def test_encoding_is_undone_by_decoding(text):
    vocabulary = words()
    assert vocabulary.decode(vocabulary.encode(text)) == " ".join(text.split())


def test_case_follows_the_vocabulary():
    upper = words({token if token.startswith("<") else token.upper(): k for token, k in LETTERS.items()})
    assert words().fold(" The  CAT's ") == "the cat's"
    assert upper.fold("The cat's") == "THE CAT'S"
    both = words({**{t: k for t, k in LETTERS.items() if t != "z"}, "Z": 31})
    assert both.case == "both"
    assert both.fold("The Zoo") == "The Zoo"


@pytest.mark.parametrize("bad", ["é", "1", "|", ",", "<pad>"])
def test_characters_without_a_token_are_refused(bad):
    with pytest.raises(VocabularyError, match="Line 3 holds '.', which the vocabulary has no token for"):
        words().encode(f"ab {bad}", "Line 3")


def test_vocabularies_that_cannot_be():
    with pytest.raises(VocabularyError, match="'a' stands twice"):
        Vocabulary(("<pad>", "a", "a"), 0)
    with pytest.raises(VocabularyError, match="The blank 3 is none of 2 outputs"):
        Vocabulary(("<pad>", "a"), 3)
    with pytest.raises(VocabularyError, match="are not 0, 1, 2"):
        Vocabulary.from_mapping({"<pad>": 0, "a": 2}, 0)


def test_a_tokenizer_must_fit_the_outputs(folder):
    tokenizer = T.Wav2Vec2CTCTokenizer.from_pretrained(folder)
    with pytest.raises(VocabularyError, match="output 32 has no token"):
        Vocabulary.from_tokenizer(tokenizer, 33)
    with pytest.raises(VocabularyError, match="'z' has no output"):
        Vocabulary.from_tokenizer(tokenizer, 31)


def test_phones_are_no_spelling(folder):
    class FakePhonemeTokenizer:
        pass

    with pytest.raises(VocabularyError, match="phones"):
        Vocabulary.from_tokenizer(FakePhonemeTokenizer(), 3)


@pytest.fixture(scope="module")
def pieces():
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    tokens = ["<unk>", PIECE + "the", PIECE + "c", "at", "s", PIECE, "a", "t", "<pad>"]
    merges = []
    inner = Tokenizer(models.BPE({token: k for k, token in enumerate(tokens)}, merges, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Metaspace()
    inner.decoder = decoders.Metaspace()
    return T.ParakeetTokenizer(tokenizer_object=inner, unk_token="<unk>", pad_token="<pad>")


def test_pieces_of_words(pieces):
    vocabulary = Vocabulary.from_tokenizer(pieces, 9)
    assert vocabulary.blank == 8
    assert vocabulary.delimiter == PIECE
    for numbers in ([1, 2, 3, 4], [2, 3, 5, 6], [1, 8, 1]):
        assert vocabulary.decode(numbers) == pieces.decode(numbers, group_tokens=False).strip()
    numbers = vocabulary.encode("At  a")
    assert vocabulary.decode(numbers) == "at a"
    with pytest.raises(VocabularyError, match="'x'"):
        vocabulary.encode("a x")
