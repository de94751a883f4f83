"""Model cards: a header that the Hub can read, every line with its evidence, and what a person wrote left alone."""

import json
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from otoscope.errors import ResultError
from otoscope.plans.plan import Evidence, Line, Plan
from otoscope.reporting.model_card import BEGIN, END, card, check_card_place, write_card
from otoscope.treatments.prune_heads import PruneHeads
from otoscope.treatments.remove_blocks import RemoveBlocks
from tests.evaluation.test_outcome import change, outcome

HUB = "facebook/hubert-base-ls960"


def plan(**other):
    lines = (
        Line(
            RemoveBlocks("layer.3"),
            (Evidence("criticality", "layer.3", 0.002, -0.001, 0.004, 0.01, "under *bypass* | <b>"),),
            "about as many errors", {"parameters": -1e6}, "remove_ambient_blocks", "Yang, Liu and Lee 2020",
        ),
        Line(PruneHeads("layer.1.head.0")),
    )  # fmt: skip
    settings = {
        "lines": lines,
        "goal": "size",
        "model": {"name": HUB, "parameters": 4e6},
        "diagnosis": {"corpus": "dev"},
    }
    return Plan(**{**settings, **other})


def record(one, weights="treated.safetensors"):
    return {
        "format": 1, "original": {"name": HUB, "fingerprint": "x", "layers": 4},
        "treatments": [treatment.to_dict() for treatment in one.treatments], "sha256": {weights: "0", "config.json": "0"},
    }  # fmt: skip


def folder(tmp_path, one, **settings):
    place = tmp_path / "small"
    place.mkdir()
    (place / "treatment.json").write_text(json.dumps(record(one, **settings)))
    one.save(place / "plan.toml")
    return place


def test_the_header_is_one_that_the_hub_reads():
    told = card(plan(), outcome(), name="small")
    read = ModelCard(told)
    head = read.data.to_dict()
    assert head["base_model"] == HUB
    assert head["library_name"] == "otoscope"
    assert head["tags"] == ["otoscope", "speech", "remove-blocks", "prune-heads"]
    assert head["metrics"] == ["wer"]
    assert head["pipeline_tag"] == "automatic-speech-recognition"
    assert "license" not in head
    (result,) = read.data.eval_results
    assert (result.metric_type, result.metric_value, result.dataset_name) == ("wer", 19.0, "exam")
    assert told.count("---\n") == 2


def test_what_it_says():
    told = card(plan(), outcome(), name="small")
    for part in (
        "1. `remove-blocks layer.3`",
        "criticality of layer.3: 0.002 \\[-0.001, 0.004\\], held against 0.01 (under \\*bypass\\* \\| &lt;b&gt;)",
        "about as many errors",
        "-1,000,000 parameters",
        "rule `remove_ambient_blocks`: Yang, Liu and Lee 2020",
        "2. `prune-heads layer.1.head.0`",
        "| wer | 0.2000 | 0.1900 | −0.0100 [−0.0200, −0.0010] | 0.980 | better |",
        "| parameters | 4 M | 3 M | −25.0 % |",
        "On `exam` (40 utterances, 9 speakers, 5.0 min), greedy decoding",
        'oto.load("small")',
        "licence",
    ):
        assert part in told, told
    assert "was not measured" not in told
    bare = card(plan())
    assert "was not measured: run `otoscope verify` with `--card`" in bare
    assert "model-index" not in bare
    assert "nothing is unpickled" not in bare  # nothing is known of the folder


def test_how_it_is_loaded_is_told_by_the_record():
    one = plan()
    own, stock = (card(one, record=record(one, weights)) for weights in ("treated.safetensors", "model.safetensors"))
    assert "refuses the folder" in own
    assert "`from_pretrained` of transformers loads it too" in stock
    assert ModelCard(stock).data.library_name == "transformers"


def test_names_cannot_break_out():
    told = card(plan(), outcome(), name="x`\n## <script>alert(1)</script>")
    prose = "".join(ModelCard(told).text.split("```")[::2])  # what stands in a fence is code, whatever it holds
    assert "<script>" not in prose
    assert told.count("\n## ") == told.count("\n## What") + 3  # How to load it, Training, Limits
    assert ModelCard(told).data.eval_results is not None


def test_an_interval_that_is_not_there():
    told = card(None, outcome(changes={"wer": change(value=0.0, low=float("nan"), high=float("nan"))}))
    assert "| wer | 0.2000 | 0.2000 | 0.0000 | 0.980 | not told apart |" in told


def test_written_beside_the_model_and_renewed(tmp_path):
    place = folder(tmp_path, plan())
    goal = write_card(place)
    assert "remove-blocks layer.3" in goal.read_text()
    assert "was not measured" in goal.read_text()
    mine = (
        goal.read_text()
        .replace("library_name", "license: mit\nlibrary_name")
        .replace(END, f"{END}\n\n## Thanks\n\nTo all.")
    )
    goal.write_text(mine)
    write_card(place, outcome=outcome())
    told = goal.read_text()
    assert ModelCard(told).data.license == "mit"
    assert told.rstrip().endswith("## Thanks\n\nTo all.")
    assert told.count(BEGIN) == told.count(END) == told.count("# small") == 1
    assert "0.1900" in told
    assert write_card(place, outcome=outcome()).read_text() == told


def test_a_card_of_the_original_keeps_its_words(tmp_path):
    place = folder(tmp_path, plan())
    (place / "README.md").write_text("---\nlicense: apache-2.0\ntags: [speech, mine]\n---\n# Original\n\nText.\n")
    told = write_card(place).read_text()
    head = ModelCard(told).data.to_dict()
    assert (head["license"], head["tags"][:3]) == ("apache-2.0", ["speech", "mine", "otoscope"])
    assert told.rstrip().endswith("# Original\n\nText.")


def test_a_plan_that_the_model_was_not_treated_by_is_refused(tmp_path):
    place = folder(tmp_path, plan())
    plan(lines=(Line(PruneHeads("layer.2.head.1")),)).save(place / "plan.toml")
    with pytest.raises(ResultError, match="not what the model was treated by"):
        write_card(place)
    assert not (place / "README.md").exists()
    (place / "plan.toml").unlink()
    told = write_card(place).read_text()
    assert "1. `remove-blocks layer.3`" in told
    assert "evidence for these treatments is not known" in told


def test_what_was_done_before_the_plan_is_listed_first():
    one = plan()
    stored = record(one)
    stored["treatments"].insert(0, PruneHeads("layer.2.head.1").to_dict())
    told = card(one, record=stored)
    assert told.index("1. `prune-heads layer.2.head.1`") < told.index("1. `remove-blocks layer.3`")


def test_where_no_card_can_stand(tmp_path, monkeypatch):
    with pytest.raises(ResultError, match="holds no treated model"):
        check_card_place(tmp_path)
    place = folder(tmp_path, plan())
    goal = write_card(place)
    before = goal.read_text()
    goal.write_text("---\n- no\n- mapping\n---\n")
    with pytest.raises(ResultError, match="header of README"):
        write_card(place)
    goal.write_text(before)

    def full(self, *_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(ResultError, match="No space left"):
        write_card(place, outcome=outcome())
    assert goal.read_text() == before
    assert sorted(one.name for one in place.iterdir()) == ["README.md", "plan.toml", "treatment.json"]
