"""An edited model is diagnosed as any other, under the names of the original."""

import polars as pl
import pytest

import otoscope as oto
from otoscope import surgery
from tests.diagnosis.small_speech import small_speech
from tests.models.small import CASES


@pytest.fixture(scope="module")
def model():
    return oto.load(CASES[0].build())


def test_rows_of_heads_name_the_heads_of_the_original(model):
    corpus = small_speech()
    cut = surgery.apply(model, [surgery.CutHeads("layer.1.head.0")])
    before, after = (oto.diagnose(one, corpus, ["globalness", "category"]).table for one in (model, cut))
    first = pl.col("layer") == 1
    left = list(range(1, model.anatomy.heads[0]))
    for name in ("globalness", "category"):
        assert after.filter(first & (pl.col("measure") == name))["head"].to_list() == left
    # What is cut from the first layer does not change the maps of its other heads.
    kept = before.filter(first & (pl.col("measure") == "globalness") & (pl.col("head") != 0))
    found = after.filter(first & (pl.col("measure") == "globalness"))
    assert found["value"].to_list() == pytest.approx(kept["value"].to_list(), abs=1e-5)
    assert kept["value"].n_unique() == len(left)
