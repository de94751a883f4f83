"""The head of masked prediction, stored beside its encoder."""

import numpy as np
import pytest
import torch
from torch import nn

from otoscope.errors import CheckpointError
from otoscope.evaluation.clusters import Clusters
from otoscope.evaluation.masked_prediction import FILE, read_prediction_head, write_prediction_head


def _made():
    torch.manual_seed(0)
    draw = np.random.default_rng(0)
    centres, mean, scale = (draw.standard_normal(shape).astype(np.float32) for shape in ((7, 39), 39, 39))
    return nn.Linear(12, 7), Clusters(centres, mean, scale, "häuser:layer.5")


def test_what_was_written_is_read_back(tmp_path):
    head, clusters = _made()
    write_prediction_head(head, clusters, tmp_path)
    again, found = read_prediction_head(tmp_path)
    assert torch.equal(again.weight, head.weight)
    assert torch.equal(again.bias, head.bias)
    assert found.source == clusters.source
    for name in ("centres", "mean", "scale"):
        np.testing.assert_array_equal(getattr(found, name), getattr(clusters, name))


def test_a_head_in_half_precision_is_read_in_float32(tmp_path):
    head, clusters = _made()
    write_prediction_head(head.half(), clusters, tmp_path)
    assert read_prediction_head(tmp_path)[0].weight.dtype == torch.float32


def test_no_head_is_told_with_the_command_that_makes_one(tmp_path):
    with pytest.raises(CheckpointError, match="no head for masked prediction") as error:
        read_prediction_head(tmp_path)
    assert "pretrain" in error.value.cure


def test_a_broken_file_is_named(tmp_path):
    write_prediction_head(*_made(), tmp_path)
    whole = (tmp_path / FILE).read_bytes()
    for broken in (b"", whole[:100], whole[:-50]):
        (tmp_path / FILE).write_bytes(broken)
        with pytest.raises(CheckpointError, match=FILE):
            read_prediction_head(tmp_path)
