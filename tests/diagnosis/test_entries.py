"""Entries of the catalogue: what they make is what they are called."""

import numpy as np

from otoscope.diagnosis.catalogue import CATALOGUE
from otoscope.diagnosis.entries import Entry
from otoscope.diagnosis.options import Options
from otoscope.measures.measure import Measure
from otoscope.models.anatomy import Anatomy, Grid
from otoscope.speech.tables import WordTable

TABLE = WordTable(("one", "two"), np.eye(2))
PAIRS = {"made": [("one", "two", 1.0), ("one", "three", 2.0)]}
OPTIONS = Options(
    other=(Anatomy("other", ("input",), {"input": 8}, {"input": Grid(320, 400)}, (2,)), "other"),
    tables={"glove": TABLE, "agwe": TABLE}, word_pairs=PAIRS, sentence_pairs=PAIRS,
)  # fmt: skip


def test_every_entry_of_one_pass_makes_the_measure_that_it_names():
    """The places where measures live are texts, which no type checker follows."""
    made = [(entry, entry.make(OPTIONS)) for entry in CATALOGUE if entry.make is not None]
    assert len(made) > 100
    for entry, measure in made:
        assert isinstance(measure, Measure), entry.name
        assert measure.name == entry.maker


def test_every_entry_makes_a_fresh_measure():
    one = next(entry for entry in CATALOGUE if entry.name == "globalness")
    assert isinstance(one, Entry)
    assert one.make(OPTIONS) is not one.make(OPTIONS)
