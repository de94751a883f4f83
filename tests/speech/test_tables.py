"""Word tables and word pairs: every format, and every fault named with its line."""

import gzip
import json
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from otoscope.errors import TableError
from otoscope.speech.tables import read_embeddings, read_word_pairs

GLOVE = "the 0.5 -1 2e-1\ncat 1 2 3\ndog 4 5 6\n"


@pytest.fixture
def write(tmp_path):
    def file(content, name="table.txt"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return file


def same(table, words, values, columns=()):
    assert table.words == tuple(words)
    assert table.columns == tuple(columns)
    assert table.values.dtype == np.float64
    np.testing.assert_array_equal(table.values, np.array(values, dtype=np.float64))


ALL = (["the", "cat", "dog"], [[0.5, -1, 0.2], [1, 2, 3], [4, 5, 6]])


@pytest.mark.parametrize(
    "text",
    [
        GLOVE,
        GLOVE.replace("\n", " \n"),
        GLOVE.replace("\n", "\r\n"),
        "\ufeff" + GLOVE,
        GLOVE + "\n\n",
        GLOVE.replace(" ", "\t"),
        GLOVE.replace(" ", ","),
        "3 3\n" + GLOVE,
        "3 3\n" + GLOVE.replace(" ", "\t"),
        GLOVE + "cat 1.0 2 3\n",
    ],
)
def test_text_in_all_its_variants(write, text):
    same(read_embeddings(write(text)), *ALL)


def test_packed_text(write):
    same(read_embeddings(write(gzip.compress(GLOVE.encode()), "t.txt.gz")), *ALL)


@pytest.mark.parametrize("separator", [" ", "\t", ",", ", "])
def test_a_first_line_of_names(write, separator):
    text = f"word x noun.act z\n{GLOVE}".replace(" ", separator)
    same(read_embeddings(write(text)), *ALL, ["x", "noun.act", "z"])


def test_only_the_words_that_are_wanted_in_the_order_of_the_file(write):
    path = write("3 3\n" + GLOVE)
    same(read_embeddings(path, ["dog", "the", "unicorn"]), ["the", "dog"], [ALL[1][0], ALL[1][2]])
    # What is passed over is not looked at closer than for its width.
    same(read_embeddings(write(GLOVE + "x nan b c\n"), {"cat"}), ["cat"], [[1, 2, 3]])
    same(read_embeddings(write(b"\xff\xfe 1 2 3\ncat 1 2 3\n"), {"cat"}), ["cat"], [[1, 2, 3]])


def test_words_as_glove_has_them(write):
    odd = ["\u00a0", "\u2028", ",", '"', "#", "at name@domain.com", ". . .", "1999", "\x85"]
    text = "".join(f"{word} {i} 0.5\n" for i, word in enumerate(["the", *odd]))
    same(read_embeddings(write(text)), ["the", *odd], [[i, 0.5] for i in range(len(odd) + 1)])


def test_a_table_of_one_column_may_start_with_a_number_for_a_word(write):
    same(read_embeddings(write("7 5\ncat 3\n")), ["7", "cat"], [[5], [3]])
    same(read_embeddings(write("7 5\n")), ["7"], [[5]])
    same(read_embeddings(write("1 1\ncat 3\n")), ["cat"], [[3]])


def test_qvec(write):
    lines = ['fish\t{"noun.food": 0.25, "noun.animal": 0.75}', 'eat\t{"verb.consumption": 1}', 'hm\t{"noun.food": 0}']
    path = write("\n".join(lines))
    columns = ["noun.animal", "noun.food", "verb.consumption"]
    same(read_embeddings(path), ["fish", "eat", "hm"], [[0.75, 0.25, 0], [0, 0, 1], [0, 0, 0]], columns)
    # The columns are those of the file, whatever words are wanted.
    same(read_embeddings(path, {"eat"}), ["eat"], [[0, 0, 1]], columns)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64])
def test_an_array_with_its_vocabulary(write, tmp_path, dtype):
    values = np.array([[1, 2], [3, 4], [5, 6]], dtype=dtype)
    np.save(tmp_path / "v.npy", values)
    write("a\nb c\r\nd\n", "v.vocab.txt")
    same(read_embeddings(tmp_path / "v.npy"), ["a", "b c", "d"], values)
    same(read_embeddings(tmp_path / "v.npy", {"d"}), ["d"], values[2:])
    other = write("x\ny\nz", "other.txt")
    same(read_embeddings(tmp_path / "v.npy", vocabulary=other), ["x", "y", "z"], values)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty"),
        ("\n \n", "is empty"),
        ("word x y\n", "a header and no words"),
        ("cat\ndog\n", "line 1: there are no numbers"),
        ("cat 1 2\ndog 1\n", "line 2: 1 numbers where the table has 2"),
        ("cat 1 2\n\ndog 1 2 3\n", "line 3: 3 numbers where the table has 2"),
        ("cat 1 2\ndog 1 x\n", "line 2: 'x' is no number"),
        ("cat 1 x\ndog 1 2\n", "line 1: 'x' is no number"),
        ("cat 1 2\ndog nan 2\n", "line 2: 'dog' has nan at place 1"),
        ("cat 1 2\ndog 2 -inf\n", "line 2: 'dog' has -inf at place 2"),
        ("cat nan 2\n", "line 1: 'cat' has nan"),
        ("cat 1 2\ndog 3 4\ncat 1 3\n", "line 3: 'cat' came before with other numbers"),
        ("cat 1 2\n 1 2\n", "line 2: there is no word"),
        ("3 2\ncat 1 2\ndog 3 4\n", "promises 3 words in its first line and has 2"),
        ("1 2\ncat 1 2\ndog 3 4\n", "promises 1 words in its first line and has 2"),
        ("3 5\ncat 1 2\ndog 3 4\n", "line 2: 2 numbers where the table has 5"),
        (b"cat 1 2\nd\xffg 3 4\n", "line 2: the word .* is not UTF-8"),
        (b"\x93NUMPY\x01\0v\0", "is not text"),
        ('cat\t{"a": 1}\ndog\n', "line 2: no JSON object"),
        ('cat\t{"a": 1}\ndog\t{"a": 1\n', "line 2: no JSON object"),
        ('cat\t{"a": 1}\ndog\t[1]\n', "line 2: .* is no object"),
        ('cat\t{"a": 1}\ndog\t{"a": true}\n', "line 2: .* is no object"),
        ('cat\t{"a": "1"}\n', "line 1: .* is no object"),
        ('cat\t{"a": NaN}\n', "line 1: 'cat' has nan"),
        ('cat\t{"a": 1}\ncat\t{"b": 1}\n', "line 2: 'cat' came before"),
        ("cat\t{}\n", "has no attributes"),
    ],
)
def test_faults_of_text(write, content, message):
    path = write(content)
    with pytest.raises(TableError, match=message) as caught:
        read_embeddings(path)
    assert str(path) in str(caught.value)
    assert caught.value.cure


def test_faults_of_files(write, tmp_path):
    with pytest.raises(TableError, match="cannot be read"):
        read_embeddings(tmp_path / "absent.txt")
    with pytest.raises(TableError, match="cannot be read"):
        read_embeddings(tmp_path)
    cut = gzip.compress((GLOVE * 50).encode())[:-20]
    with pytest.raises(TableError, match="cannot be read"):
        read_embeddings(write(cut, "cut.gz"))
    with pytest.raises(TableError, match="cannot be read"):
        read_embeddings(write("cat 1 2\n", "not_packed.gz"))
    with pytest.raises(TableError, match="none of the 1 words"):
        read_embeddings(write(GLOVE), {"Cat"})
    with pytest.raises(TableError, match="has its words in it"):
        read_embeddings(write(GLOVE), vocabulary=tmp_path / "table.txt")


def test_faults_of_arrays(write, tmp_path):
    path = tmp_path / "v.npy"
    with pytest.raises(TableError, match="cannot be read"):
        read_embeddings(path)
    with pytest.raises(TableError, match="is no array of numbers that numpy wrote"):
        read_embeddings(write("cat 1 2\n", "text.npy"))
    np.save(path, np.ones((2, 3)))
    with pytest.raises(TableError, match=r"has no words: there is no .*v\.vocab\.txt"):
        read_embeddings(path)
    write("a\n\nb\n", "v.vocab.txt")
    with pytest.raises(TableError, match=r"has 2 rows and .* 3 words"):
        read_embeddings(path)
    write("a\na\n", "v.vocab.txt")
    same(read_embeddings(path), ["a"], [[1, 1, 1]])
    np.save(path, np.array([[1.0, 2], [3, np.nan]]))
    write("a\nb\n", "v.vocab.txt")
    with pytest.raises(TableError, match="line 2: 'b' has nan at place 2"):
        read_embeddings(path)
    for wrong in (np.ones(3), np.ones((0, 2)), np.ones((2, 2), dtype=complex), np.array([["a", "b"]])):
        np.save(path, wrong)
        with pytest.raises(TableError, match=r"Give numbers of shape \(n, d\)"):
            read_embeddings(path)


words = st.text(st.characters(exclude_categories=["Cs", "Cc", "Z"]), min_size=1, max_size=6).filter(
    lambda word: not word.isdigit() and "," not in word and not word.startswith("\ufeff")
)
numbers = st.floats(allow_nan=False, allow_infinity=False)


@given(st.data(), st.integers(2, 4), st.booleans())
def test_any_table_is_read_back(data, width, counted):
    rows = data.draw(st.dictionaries(words, st.lists(numbers, min_size=width, max_size=width), min_size=1, max_size=5))
    dense = [f"{len(rows)} {width}"] * counted + [" ".join([word, *map(repr, row)]) for word, row in rows.items()]
    qvec = [f"{word}\t{json.dumps(dict(zip('abcd', row, strict=False)))}" for word, row in rows.items()]
    wanted = data.draw(st.sets(st.sampled_from(sorted(rows)), min_size=1))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "t.txt"
        for lines, columns in ((dense, ""), (qvec, "abcd"[:width])):
            path.write_text("\n".join(lines), encoding="utf-8")
            same(read_embeddings(path), rows, list(rows.values()), columns)
            kept = {word: row for word, row in rows.items() if word in wanted}
            same(read_embeddings(path, wanted), kept, list(kept.values()), columns)


PAIRS = [("tiger", "cat", 7.35), ("money", "cash", 9.15), ("money", "cash", 9.08)]


@pytest.mark.parametrize(
    "text",
    [
        "tiger\tcat\t7.35\nmoney\tcash\t9.15\nmoney\tcash\t9.08\n",
        "tiger,cat,7.35\r\nmoney,cash,9.15\r\nmoney,cash,9.08\r\n",
        "Word 1,Word 2,Human (mean)\ntiger,cat,7.35\nmoney,cash,9.15\nmoney,cash,9.08\n",
        "Word 1\tWord 2\tHuman (mean)\t1\t2\ntiger\tcat\t7.35\t9\t7\nmoney\tcash\t9.15\t8\t10\nmoney\tcash\t9.08\t8\t9\n",
        "# scores of 0 to 10\ntiger cat 7.35\n\nmoney cash   9.15\nmoney cash 9.08\n",
        "tiger;cat;7.35\nmoney;cash;9.15\nmoney;cash;9.08\n",
        "word1\tword2\tPOS\tSimLex999\tSD\ntiger\tcat\tN\t7.35\t1\nmoney\tcash\tN\t9.15\t1\nmoney\tcash\tN\t9.08\t0\n",
        "a,b,how alike\n\"tiger\",cat,7.35\nmoney,cash,9.15\nmoney,cash,9.08\n",
        "\ufefftiger cat 7.35\nmoney cash 9.15\nmoney cash 9.08\n",
    ],
)  # fmt: skip
def test_pairs_in_all_their_variants(write, text):
    assert read_word_pairs(write(text)) == PAIRS


def test_the_column_of_the_scores_can_be_named(write):
    path = write("w v POS score other\ntake remove V 6.81 1.5\n")
    assert read_word_pairs(path) == [("take", "remove", 6.81)]
    assert read_word_pairs(path, "Other") == [("take", "remove", 1.5)]
    assert read_word_pairs(path, 4) == [("take", "remove", 1.5)]
    assert read_word_pairs(write("take\tremove\tV\t6.81\n"), 3) == [("take", "remove", 6.81)]
    # "score" is a word here.
    assert read_word_pairs(write("goal score 7\n")) == [("goal", "score", 7.0)]


@pytest.mark.parametrize(
    ("content", "column", "message"),
    [
        ("", None, "no pairs"),
        ("# nothing\n", None, "no pairs"),
        ("Word 1,Word 2,Human (mean)\n", None, "a header and no pairs"),
        ("cat dog 5\ncat\n", None, "line 2: 1 fields where 3 are needed"),
        ("cat,dog\ncat,cow,3\n", None, "line 1: 2 fields where 3 are needed"),  # no header that would be passed over
        ("cat,dog,5\ncat,,5\n", None, "line 2: 3 fields"),
        ("cat dog 5\ncat bird high\n", None, "line 2: the score is 'high'"),
        ("cat dog 5\n\ncat bird nan\n", None, "line 3: the score is 'nan'"),
        ("take\tremove\tV\t6.81\n", None, "line 1: the score is 'V'"),
        ("a b c\ncat dog 5\n", "SimLex999", "no column 'SimLex999'"),
        ("cat dog 5\n", 7, "line 1: 3 fields where 8 are needed"),
        (b"cat d\xffg 5\n", None, "line 1 is not UTF-8"),
    ],
)
def test_faults_of_pairs(write, content, column, message):
    path = write(content)
    with pytest.raises(TableError, match=message) as caught:
        read_word_pairs(path, column)
    assert str(path) in str(caught.value)
    assert caught.value.cure
