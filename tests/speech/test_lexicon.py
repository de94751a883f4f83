"""The lexicon of the sentence grammar: nothing that is said is missing, and its tables say what they promise."""

import os
import subprocess
import sys
from collections import Counter
from itertools import combinations

import numpy as np
import pytest
from scipy.stats import spearmanr

from otoscope.errors import TableError
from otoscope.speech.synthesis.lexemes import lexemes
from otoscope.speech.synthesis.lexicon import FILES, embedding_table, semantic_table, syntactic_table, write_lexicon
from otoscope.speech.synthesis.similarities import sentence_pairs, sentence_similarity, word_pairs, word_similarity
from otoscope.speech.synthesis.vocabulary import vocabulary
from otoscope.speech.tables import read_embeddings, read_word_pairs

# Words that carry no meaning of their own.
GRAMMAR = {"dt", "cc", "in", "to", "prp", "prp$", "wp", "wrb", "ex", "uh", "md", "rp", "pos"}


@pytest.fixture(scope="module")
def sentences():
    # In a process without the checks of annotations, which take far longer than the grammar.
    code = (
        "from otoscope.speech.synthesis.sentences import Sentences; one = Sentences(11)\n"
        "for _ in range(20_000): print(one.new())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


@pytest.fixture(scope="module")
def rows():
    table = embedding_table()
    return dict(zip(table.words, table.values, strict=True))


def row(table, word):
    values = table.values[table.words.index(word)]
    return {name: value for name, value in zip(table.columns, values, strict=True) if value}


def test_every_word_that_is_said_is_in_the_lexicon(sentences):
    said = {word for text in sentences for word in text.split()}
    assert len(said) > 3500
    assert not said - set(lexemes())


def test_every_listed_word_is_in_the_lexicon_and_no_other():
    listed = {word for kind in vocabulary().values() for forms in kind.entries for word in " ".join(forms).split()}
    assert not listed - set(lexemes())
    assert 3500 < len(lexemes()) < 4500


def test_words_that_have_no_meaning_are_words_of_grammar():
    without = {word: one.tags for word, one in lexemes().items() if not one.classes}
    assert {word for word, tags in without.items() if not set(tags) <= GRAMMAR} == {"not"}
    assert len(without) < 120


def test_shares_sum_to_1():
    for one in lexemes().values():
        for shares in (one.tags, one.lemmas, *([one.classes, one.groups] if one.classes else [])):
            assert sum(shares.values()) == pytest.approx(1, abs=1e-12)
            assert min(shares.values()) > 0
    for table in (semantic_table(), syntactic_table()):
        np.testing.assert_allclose(table.values.sum(axis=1), 1, atol=1e-12)
        assert (table.values.max(axis=0) > 0).all()


@pytest.mark.parametrize(
    ("word", "tags", "classes"),
    [
        ("dogs", {"nns"}, {"noun.animal"}),
        ("butter", {"nn"}, {"noun.food"}),
        ("sang", {"vbd"}, {"verb.creation"}),
        ("going", {"vbg"}, {"verb.motion"}),
        ("open", {"vb", "vbp", "jj"}, {"verb.change", "adj.state"}),
        ("orange", {"nn", "jj"}, {"noun.food", "adj.colour"}),
        ("may", {"md", "nnp"}, {"noun.time"}),
        ("rose", {"nn", "nnp"}, {"noun.plant", "noun.person"}),
        ("paris", {"nnp"}, {"noun.location"}),
        ("mary's", {"nnp", "pos"}, {"noun.person"}),
        ("seven", {"cd"}, {"noun.quantity"}),
        ("quickly", {"rb"}, {"adv.manner"}),
        ("the", {"dt"}, set()),
        ("because", {"in"}, set()),
        ("o'clock", {"nn"}, {"noun.time"}),
    ],
)
def test_known_words(word, tags, classes):
    assert set(row(syntactic_table(), word)) == {f"ptb.{tag}" for tag in tags}
    assert (word in semantic_table().words) == bool(classes)
    if classes:
        assert set(row(semantic_table(), word)) == classes


def test_as_many_plurals_are_said_as_the_lexicon_takes_for_granted(sentences):
    counts = Counter(word for text in sentences for word in text.split())
    plural = sum(counts[word] for word, one in lexemes().items() if set(one.tags) == {"nns"})
    single = sum(counts[word] for word, one in lexemes().items() if set(one.tags) == {"nn"})
    assert plural / (plural + single) == pytest.approx(0.25, abs=0.05)


def test_vectors_are_near_where_classes_are_shared(rows):
    def near(one, other):
        left, right = rows[one], rows[other]
        return left @ right / np.linalg.norm(left) / np.linalg.norm(right)

    # In one group, in one class, in none: means over many words, for single vectors are random.
    groups: dict[str, list[str]] = {}
    for word, one in lexemes().items():
        if set(one.tags) == {"nn"} and len(one.groups) == 1:
            groups.setdefault(next(iter(one.groups)), []).append(word)
    kin = [near(*pair) for words in groups.values() for pair in combinations(words[:6], 2)]
    first = {group: words[0] for group, words in groups.items()}
    same = [near(first[a], first[b]) for a, b in combinations(first, 2) if a.split()[0] == b.split()[0]]
    other = [near(first[a], first[b]) for a, b in combinations(first, 2) if a.split()[0] != b.split()[0]]
    assert np.mean(kin) > np.mean(same) + 0.2 > np.mean(other) + 0.4
    assert near("dog", "dogs") > near("dog", "cat") > 0.5


def test_vectors_by_seed_and_width():
    assert embedding_table() is embedding_table()
    table, other = embedding_table(width=8, seed=1), embedding_table(width=8, seed=2)
    assert table.values.shape == (len(lexemes()), 8)
    assert not np.allclose(table.values, other.values)
    assert not table.values.flags.writeable
    assert np.linalg.matrix_rank(embedding_table().values) == 50
    with pytest.raises(TableError, match="0 numbers"):
        embedding_table(width=0)


def test_similarity_of_words():
    assert word_similarity("dog", "dog") == 10
    assert word_similarity("sang", "sang") == 10
    assert word_similarity("dog", "dogs") == 9
    assert word_similarity("dog", "kitten") == 8
    assert word_similarity("dog", "giraffe") == 4
    assert word_similarity("dog", "hammer") == 1
    assert word_similarity("dog", "sing") == 0
    for one, other in (("open", "shut_not_there"), ("dog", "the")):
        with pytest.raises(TableError, match="no meaning"):
            word_similarity(one, other)


def test_pairs_of_words(rows):
    pairs = word_pairs(353, seed=3)
    assert pairs == word_pairs(353, seed=3) != word_pairs(353, seed=4)
    assert len({frozenset(pair[:2]) for pair in pairs}) == len(pairs) == 353
    scores = [score for *_, score in pairs]
    assert all(score == word_similarity(other, one) for one, other, score in pairs)
    assert min(scores) == 0
    # All of the scale is in use.
    assert 0.2 < np.mean(np.array(scores) < 2) < 0.5
    assert np.mean(np.array(scores) > 6) > 0.2
    cosines = [rows[a] @ rows[b] / np.linalg.norm(rows[a]) / np.linalg.norm(rows[b]) for a, b, _ in pairs]
    assert spearmanr(cosines, scores).statistic > 0.8


def test_pairs_of_given_words():
    among = ["dog", "cat", "the", "hammer", "sing", "xylophone"]
    pairs = word_pairs(6, words=among)
    assert {frozenset(pair[:2]) for pair in pairs} == {
        frozenset(pair) for pair in combinations(["dog", "cat", "hammer", "sing"], 2)
    }
    for n in (0, 7):
        with pytest.raises(TableError, match=f"{n} pairs are asked for, and 4 words .* make 6"):
            word_pairs(n, words=among)


def test_similarity_of_sentences():
    assert sentence_similarity("the dog slept", "A dog slept") == 5
    assert sentence_similarity("dog", "kitten") == 4
    # Both words of the first find their like; of the second "hammer" has the tag of "dog", "paris" nothing.
    assert word_similarity("sing", "paris") == word_similarity("dog", "paris") == 0
    assert sentence_similarity("dog sing", "dog hammer paris sing") == pytest.approx(
        5 * (1 + (2 + 0.1) / 4) / 2, abs=1e-4
    )
    assert sentence_similarity("xylophone", "the xylophone") == 5
    assert sentence_similarity("xylophone", "dog") == 0
    assert sentence_similarity("the of is", "dog") is None


def test_pairs_of_sentences(sentences):
    texts = ["she is in", *sentences[:60]]
    pairs = sentence_pairs(texts, 200, seed=1)
    assert pairs == sentence_pairs(texts, 200, seed=1) != sentence_pairs(texts, 200, seed=2)
    assert len({frozenset(pair[:2]) for pair in pairs}) == len(pairs) == 200
    assert all(one != other and 0 not in (one, other) for one, other, _ in pairs)
    assert all(score == sentence_similarity(texts[other], texts[one]) for one, other, score in pairs)
    assert len({score for *_, score in pairs}) > 50
    with pytest.raises(TableError, match="2 pairs are asked for, and 2 transcripts"):
        sentence_pairs(["a dog", "she is", "a cat"], 2)
    assert sentence_pairs(["xylophone", "she is", "a cat"], 1)[0][2] == 0


def test_what_is_written_is_read_back(tmp_path):
    folder = write_lexicon(tmp_path / "a" / "lexicon", width=12, pairs=40, seed=5)
    assert sorted(path.name for path in folder.iterdir()) == sorted(FILES.values())
    assert [path.name for path in folder.parent.iterdir()] == ["lexicon"]
    for name, table in (
        ("embeddings", embedding_table(12, 5)), ("semantic", semantic_table()), ("syntactic", syntactic_table()),
    ):  # fmt: skip
        back = read_embeddings(folder / FILES[name])
        assert (back.words, back.columns) == (table.words, table.columns)
        np.testing.assert_array_equal(back.values, table.values)
    assert read_word_pairs(folder / FILES["word pairs"]) == word_pairs(40, 5)
    with pytest.raises(TableError, match="not empty"):
        write_lexicon(folder)
    assert (folder.stat().st_mode & 0o777) == 0o777 & ~_umask()


def _umask():
    now = os.umask(0)
    os.umask(now)
    return now


def test_nothing_is_left_of_what_could_not_be_written(tmp_path):
    with pytest.raises(TableError, match="0 pairs"):
        write_lexicon(tmp_path / "lexicon", pairs=0)
    assert not list(tmp_path.iterdir())
    (tmp_path / "empty").mkdir()
    assert write_lexicon(tmp_path / "empty", width=3, pairs=2).is_dir()


def test_the_tables_are_the_same_in_every_process():
    code = (
        "from otoscope.speech.synthesis.lexicon import *; from otoscope.speech.synthesis.similarities import *\n"
        "import hashlib; print(hashlib.sha256(embedding_table(7).values.tobytes() + semantic_table().values.tobytes()"
        " + repr((word_pairs(50), semantic_table().columns)).encode()).hexdigest())"
    )
    said = set()
    for seed in ("1", "2"):
        settings = os.environ | {"PYTHONHASHSEED": seed}
        run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=settings)
        said.add(run.stdout)
    assert len(said) == 1
