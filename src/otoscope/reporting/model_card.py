"""The model card of a treated folder: what was changed and why, what it did, how the model is loaded."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from otoscope._version import __version__
from otoscope.errors import ResultError
from otoscope.evaluation.outcome import Change, Outcome, decoder_in_words
from otoscope.plans.plan import Line, Plan
from otoscope.plans.showing import saved
from otoscope.reporting.facts import duration, magnitude
from otoscope.reporting.values import number, plural
from otoscope.treatments.applying import last_turns

NAME = "README.md"
PLAN, RECORD = "plan.toml", "treatment.json"
BEGIN, END = "<!-- otoscope: begin -->", "<!-- otoscope: end -->"
"""What otoscope wrote stands between these two lines; all else in a card is left as it is."""

_INDEX = "model-index"
_STOCK = "model.safetensors"
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


def card(
    plan: Plan | None,
    outcome: Outcome | None = None,
    *,
    name: str = "",
    record: Mapping[str, Any] | None = None,
    earlier: str = "",
) -> str:
    """A model card as text: a YAML header as the Hub reads it, and Markdown.

    Args:
        plan: what was done and why; None where only the record of the treatment is known.
        outcome: what it did; None where that was not measured.
        name: of the treated model.
        record: what `treatment.json` holds.
        earlier: the card that is there; what otoscope did not write stays.

    Raises:
        ResultError: the earlier card's header cannot be read, or the plan is not what the model was treated by.
    """
    record, name = record or {}, " ".join(name.split())
    original = _original(plan, outcome, record)
    stock = _STOCK in record.get("sha256", {})
    head, body = _parted(earlier)
    stored = [dict(one) for one in record.get("treatments", ())]
    given = [one.to_dict() for one in last_turns(plan.treatments)] if plan is not None else stored
    if record and given and stored[-len(given) :] != given:
        raise ResultError(
            "The plan is not what the model was treated by: its treatments are others than those of the record",
            f"Name the plan that the model was treated by, or take the {PLAN} out of its folder.",
        )
    kinds = list(dict.fromkeys(str(one["treatment"]) for one in (*stored, *given)))
    head = {**head, **_header(head, name, original, kinds, stock, outcome)}
    parts = [
        f"# {_text(name or 'A treated model')}",
        f"This is {_code(original)}, changed by otoscope {__version__}.",
        *_changes(plan, stored[: len(stored) - len(given)] if plan is not None else stored),
        *(_results(outcome) if outcome is not None else []),
        *_loading(name, stock, bool(record)),
        *_training(kinds),
        *_limits(outcome),
    ]
    written = "\n\n".join([BEGIN, *parts, END])
    before, found, after = body.partition(BEGIN)
    if found:
        after = after.partition(END)[2]
    else:
        before, after = "", body
    text = "\n\n".join(part for part in (before.strip(), written, after.strip()) if part)
    return f"---\n{_yaml(head)}\n---\n\n{text}\n"


def write_card(folder: str | os.PathLike[str], plan: Plan | None = None, outcome: Outcome | None = None) -> Path:
    """Writes or renews the model card of a treated folder, whole or not at all.

    Args:
        folder: what `otoscope treat -o` wrote.
        plan: what was done and why; by default the plan.toml in the folder, where there is one.
        outcome: what it did.

    Returns:
        The card.

    Raises:
        ResultError: the folder holds no treated model, or the card cannot be read or written.
        PlanError: the plan in the folder cannot be read.
    """
    place = check_card_place(folder)
    record = _record(place)
    if plan is None and (place / PLAN).is_file():
        plan = Plan.load(place / PLAN)
    goal = place / NAME
    unfinished = goal.with_name(f".{NAME}.{os.getpid()}.part")
    try:
        earlier = goal.read_text(encoding="utf-8") if goal.exists() else ""
        text = card(plan, outcome, name=place.name, record=record, earlier=earlier)
        try:
            unfinished.write_text(text, encoding="utf-8")
            unfinished.replace(goal)
        finally:
            with suppress(OSError):
                unfinished.unlink(missing_ok=True)
    except (OSError, UnicodeDecodeError) as error:
        raise ResultError(
            f"The model card cannot be written to {goal}: {getattr(error, 'strerror', None) or error}",
            "Name a folder that you may write to and that has room.",
        ) from error
    return goal


def check_card_place(folder: str | os.PathLike[str]) -> Path:
    """Makes sure that a folder's model card may be written; to be called before long work.

    Returns:
        The folder, with links followed.

    Raises:
        ResultError: it holds no treated model, or cannot be written.
    """
    place = Path(folder).resolve()
    if not (place / RECORD).is_file():
        raise ResultError(f"{folder} holds no treated model", "Name a folder that `otoscope treat -o` wrote.")
    if not os.access(place, os.W_OK):
        raise ResultError(f"The model card cannot be written to {place}", "Name a folder that you may write to.")
    return place


def _record(place: Path) -> dict[str, Any]:
    try:
        return dict(json.loads((place / RECORD).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise ResultError(f"{place / RECORD} cannot be read: {error}", "Treat the original again.") from error


def _original(plan: Plan | None, outcome: Outcome | None, record: Mapping[str, Any]) -> str:
    """The name of the model before: that of the record, of the plan, or of the outcome."""
    known = record.get("original", {}).get("name") or (plan.model.get("name") if plan else None)
    return str(known or (outcome.provenance["before"][0]["name"] if outcome else "another model"))


def _parted(earlier: str) -> tuple[dict[str, Any], str]:
    """Header and body of a card; both empty where there is none."""
    from huggingface_hub import ModelCard
    from yaml import YAMLError

    if not earlier.strip():
        return {}, ""
    try:
        found = ModelCard(earlier)
        return dict(found.data.to_dict()), found.text
    except (ValueError, TypeError, KeyError, YAMLError) as error:
        raise ResultError(f"The header of {NAME} cannot be read: {error}", "Mend its YAML, or take it away.") from error


def _header(
    head: Mapping[str, Any], name: str, original: str, kinds: Sequence[str], stock: bool, outcome: Outcome | None
) -> dict[str, Any]:
    found: dict[str, Any] = {
        "library_name": "transformers" if stock else "otoscope",
        "tags": list(dict.fromkeys([*head.get("tags", ()), "otoscope", "speech", *kinds])),
    }
    if _HUB_NAME.fullmatch(original) and not Path(original).exists():
        found["base_model"] = original
    if outcome is not None:
        found["pipeline_tag"] = "automatic-speech-recognition"
        found["metrics"] = [metric for metric in outcome.changes if metric in ("wer", "cer")]
        found |= _index(name, outcome)
    return found


def _index(name: str, outcome: Outcome) -> dict[str, Any]:
    """Results as the Hub shows them; error rates in percent."""
    from huggingface_hub import EvalResult
    from huggingface_hub.repocard_data import eval_results_to_model_index

    corpus = str(outcome.provenance["corpus"]["name"])
    results = [
        EvalResult(
            task_type="automatic-speech-recognition", dataset_type=re.sub(r"[^\w./-]+", "-", corpus) or "speech",
            dataset_name=corpus, metric_type=metric, metric_name=f"{metric.upper()} (%)",
            metric_value=round(100 * change.after.value, 2),
        )
        for metric, change in outcome.changes.items() if metric in ("wer", "cer")
    ]  # fmt: skip
    return {_INDEX: eval_results_to_model_index(name or "treated", results)} if results else {}


def _yaml(head: Mapping[str, Any]) -> str:
    from huggingface_hub.utils import yaml_dump

    ordered = {name: head[name] for name in (*sorted(head.keys() - {_INDEX}), *({_INDEX} & head.keys()))}
    return str(yaml_dump(ordered, sort_keys=False)).rstrip()


def _changes(plan: Plan | None, others: Sequence[Mapping[str, Any]]) -> list[str]:
    """What was done, each line with its evidence; first what stands in no plan."""
    found = ["## What was changed"]
    if others:
        found.append("\n".join(f"{k}. {_code(_told(one))}" for k, one in enumerate(others, start=1)))
        after = "" if plan is None else " After them:"
        found.append(f"The evidence for these treatments is not known, since no plan lies beside the model.{after}")
    if plan is None:
        return found
    if not plan.lines:
        return [*found, "Nothing: the plan prescribes no treatment."]
    goal = f" for {plan.goal}" if plan.goal else ""
    corpus = plan.diagnosis.get("corpus")
    on = f" It rests on a diagnosis of {_code(corpus)}." if isinstance(corpus, str) else ""
    found.append(f"A plan{goal} of {plural(len(plan.lines), 'treatment')}, in this order.{on}")
    found.append("\n".join(text for k, line in enumerate(plan.lines, start=1) for text in _line(k, line)))
    if plan.cost:
        found.append(f"In all: {_text(saved(plan.cost, plan.model))}.")
    return found


def _line(place: int, line: Line) -> list[str]:
    lines = [f"{place}. {_code(line.treatment)}"]
    cost = saved(line.cost) if line.cost else ""
    lines += [f"   - {_text(text)}" for text in (*map(str, line.evidence), line.expected, cost) if text]
    if line.rule or line.source:
        lines.append(f"   - rule {_code(line.rule or 'by hand')}" + (f": {_text(line.source)}" if line.source else ""))
    return lines


def _told(one: Mapping[str, Any]) -> str:
    """A stored treatment in one line."""
    more = ", ".join(
        f"{name} {value}" for name, value in one.items() if name not in ("treatment", "units") and value != ""
    )
    return f"{one.get('treatment')} {one.get('units', '')}" + (f" ({more})" if more else "")


def _results(outcome: Outcome) -> list[str]:
    about = outcome.provenance
    speech = about["corpus"]
    speakers = f", {speech['speakers']} speakers" if speech.get("speakers") else ""
    table = ["| metric | before | after | difference [95 %] | better with probability | |", f"|{' --- |' * 6}"]
    table += [_row(name, change) for name, change in outcome.changes.items()]
    found = [
        "## What it did",
        f"On {_code(speech['name'])} ({speech['utterances']} utterances{speakers}, {duration(speech['seconds'])}), "
        f"{_text(decoder_in_words(about['decoder']))} decoding, the same batches before and after. Intervals are by "
        f"bootstrap over {outcome.first.difference.by}s.",
        "\n".join(table),
    ]
    if outcome.savings:
        rows = ["| cost | before | after | change |", "| --- | --- | --- | --- |"]
        rows += [
            f"| {_text(name)} | {_size(before)} | {_size(after)} | {_percent(before, after)} |"
            for name, before, after in outcome.savings
        ]
        found.append("\n".join(rows))
    if outcome.time is not None:
        found.append(f"{_text(outcome.time).capitalize()}.")
    found += [f"- {_text(note)}." for note in about["notes"]]
    return found


def _row(name: str, change: Change) -> str:
    found = change.difference
    ends = "" if found.low != found.low else f" [{_signed(found.low)}, {_signed(found.high)}]"
    return (
        f"| {name} | {number(found.before, 4)} | {number(found.after, 4)} | {_signed(found.value)}{ends} | "
        f"{found.probability_of_improvement:.3f} | {change.verdict} |"
    )


def _loading(name: str, stock: bool, stored: bool) -> list[str]:
    place = json.dumps(name or "folder", ensure_ascii=False)
    lines = [
        "## How to load it",
        f"```python\nimport otoscope as oto\n\nmodel = oto.load({place})  # this folder\n```",
    ]
    if stock:
        lines.append(
            "`from_pretrained` of transformers loads it too; it numbers the layers that are left anew, from 0. otoscope "
            "keeps the numbers of the original."
        )
    elif stored:
        lines.append(
            "`from_pretrained` of transformers cannot express this change and refuses the folder. All weights are "
            "safetensors; nothing is unpickled."
        )
    return lines


def _training(kinds: Sequence[str]) -> list[str]:
    """What the treatments ask of a training."""
    asked = [kind for kind in kinds if kind in ("freeze", "learning-rate", "low-rank", "reinitialise")]
    text = "`otoscope finetune` trains it on; heads, spans and layers stay as they were treated."
    if asked:
        text += f" It keeps to {', '.join(_code(kind) for kind in asked)} of the list above."
    return ["## Training", text]


def _limits(outcome: Outcome | None) -> list[str]:
    lines = ["- Names of layers and heads are those of the original model: layers count from 1, heads from 0."]
    if outcome is None:
        lines.append("- What the change did to error rates was not measured: run `otoscope verify` with `--card`.")
    else:
        lines.append(
            "- Figures hold for this speech and this decoder; other speech, noise, accents or languages may lose more."
        )
    lines.append(
        "- The licence is for you to state (`license:` in the header): that of the original model and of the speech "
        "that it was trained on applies."
    )
    return ["## Limits", "\n".join(lines)]


def _signed(value: float) -> str:
    text = number(value, 4)
    return text if text.startswith("−") or float(text) == 0 else f"+{text}"


def _size(value: float) -> str:
    return magnitude(value) if value >= 1000 else f"{value:.3g}"


def _percent(before: float, after: float) -> str:
    text = number(100 * (after - before) / before if before else None, 1)
    return text if text == "–" else f"{text if text[0] == '−' or float(text) == 0 else f'+{text}'} %"


def _text(value: Any) -> str:
    """Text that Markdown takes for nothing but text."""
    told = re.sub(r"([\\`*_\[\]|])", r"\\\1", " ".join(str(value).split()))
    return told.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _code(value: Any) -> str:
    """Text as code, whatever it holds."""
    return "`" + " ".join(str(value).replace("`", "'").split()) + "`"
