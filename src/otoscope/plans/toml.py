"""Plans as TOML: written so that a person can read and edit them, read with the line of whatever is wrong."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields
from typing import Any, NoReturn, get_type_hints

from otoscope.errors import OtoscopeError, PlanError
from otoscope.plans.places import Path, line_numbers, line_of
from otoscope.plans.plan import MODEL, Evidence, Line, Plan
from otoscope.treatments.treatment import from_dict, kinds

FORMAT = 1
_HEAD = """A plan of otoscope: what is changed in a model, in this order, and what speaks for it.
`otoscope treat MODEL plan.toml -o DIR` carries it out, with --dry-run only on trial.
Lines may be changed, added and deleted. Only kind, units and the values beside them change the model:
evidence, expected, cost, rule and reference say why a line is here, and may be left out.
Layers count from 1 and heads from 0, both by the names of the original model."""
_MODEL = "The model that the plan is for; without this table it is for any model that has the units."
_DIAGNOSIS = "What the evidence was taken on."
_NOTES = "What rules looked at and did not act on."
# What `SpeechModel.describe` tells beside; a plan that was made of all of it is read, too.
_DESCRIBED = (
    "head_names", "original_heads", "removed", "borrowed_maps", "fixed_maps", "replaced_attention", "streams", "widths",
    "hop_ms", "receptive_field_ms", "preprocessing", "dtype",
)  # fmt: skip
_TOP = ("format", "goal", "notes", "model", "diagnosis", "treatment")
_BESIDE = ("expected", "cost", "rule", "reference", "evidence")  # keys of a treatment that change nothing
_WORDS = {str: "text", bool: "true or false", int: "a whole number", float: "a number", list: "a list", dict: "a table"}


def write_plan(plan: Plan) -> str:
    """A plan as TOML with comments.

    Raises:
        PlanError: the description of the model or the diagnosis holds what TOML cannot.
    """
    import tomlkit
    from tomlkit.exceptions import TOMLKitError

    document = tomlkit.document()
    for line in _HEAD.splitlines():
        document.add(tomlkit.comment(line))
    document.add(tomlkit.nl())
    document.add("format", tomlkit.item(FORMAT))
    if plan.goal:
        document.add("goal", tomlkit.item(plan.goal))
    if plan.notes:
        document.add(tomlkit.nl())
        document.add(tomlkit.comment(_NOTES))
        notes = tomlkit.array()
        for note in plan.notes:
            notes.add_line(note)
        notes.add_line(indent="")
        document.add("notes", notes)
    try:
        for name, about, comment in (("model", plan.model, _MODEL), ("diagnosis", plan.diagnosis, _DIAGNOSIS)):
            if about:
                table = tomlkit.table()
                table.add(tomlkit.comment(comment))
                for key, value in about.items():
                    table.add(key, tomlkit.item(value))
                document.add(tomlkit.nl())
                document.add(name, table)
        lines = tomlkit.aot()
        for one in plan.lines:
            lines.append(_written(one))
        if plan.lines:
            document.add(tomlkit.nl())
            document.add("treatment", lines)
    except (TOMLKitError, ValueError, TypeError) as error:
        raise PlanError(f"The plan cannot be written as TOML: {error}", "Keep to text, numbers and lists.") from error
    text = tomlkit.dumps(document)
    return re.sub(r"\n{3,}", "\n\n", re.sub(r"(?<!\n)\n(\[\[?treatment)", r"\n\n\1", text)).rstrip("\n") + "\n"


def _written(line: Line) -> Any:
    """A line as a table of TOML."""
    import tomlkit

    table = tomlkit.table()
    values = line.treatment.to_dict()
    table.add("kind", values.pop("treatment"))
    needed = {one.name for one in fields(line.treatment) if one.default is MISSING}
    defaults = {one.name: one.default for one in fields(line.treatment)}
    for key, value in values.items():
        if key in needed or value != defaults[key]:
            table.add(key, tomlkit.item(value))
    for key, told in (("expected", line.expected), ("rule", line.rule), ("reference", line.source)):
        if told:
            table.add(key, told)
    if line.cost:
        cost = tomlkit.inline_table()
        cost.update(line.cost)
        table.add("cost", cost)
    if line.evidence:
        evidence = tomlkit.aot()
        for one in line.evidence:
            found = tomlkit.table()
            kept = {key: value for key, value in asdict(one).items() if value is not None}
            found.update(kept if one.note else {key: value for key, value in kept.items() if key != "note"})
            evidence.append(found)
        table.add("evidence", evidence)
    return table


def read_plan(text: str, where: str = "the plan") -> Plan:
    """A plan from TOML.

    Args:
        text: as `write_plan` or a person wrote it.
        where: the name of the file, for messages.

    Raises:
        PlanError: it is no TOML, or no plan; with the line.
    """
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        found = re.search(r"line (\d+)", str(error))
        line = found.group(1) if found else str(max(text.count("\n"), 1))
        raise PlanError(
            f"{where}, line {line}: this is no TOML: {error}", "Text stands in quotes, tables in [[treatment]]."
        ) from error
    return _Reader(line_numbers(text), where).plan(values)


@dataclass(frozen=True)
class _Reader:
    """Turns plain values into a plan, and names the line of what is wrong.

    Attributes:
        lines: see `line_numbers`.
        where: the name of the file.
    """

    lines: Mapping[Path, int]
    where: str

    def plan(self, values: Mapping[str, Any]) -> Plan:
        self._known((), values, _TOP)
        made_by = self._typed((), values, "format", int, FORMAT)
        if made_by != FORMAT:
            self._refuse(("format",), f"it has the format {made_by}", f"This otoscope reads the format {FORMAT}.")
        tables = values.get("treatment", [])
        if not isinstance(tables, list) or not all(isinstance(one, dict) for one in tables):
            self._refuse(("treatment",), "treatment is no array of tables", "Write each under [[treatment]].")
        notes = self._typed((), values, "notes", list, [])
        if not all(isinstance(note, str) for note in notes):
            self._refuse(("notes",), "notes hold something other than text", "Put each note in quotes.")
        goal = self._typed((), values, "goal", str, "")
        model = self._typed((), values, "model", dict, {})
        self._known(("model",), model, (*MODEL, *_DESCRIBED))
        try:
            return Plan(
                tuple(self._line(k, one) for k, one in enumerate(tables)), goal,
                model, self._typed((), values, "diagnosis", dict, {}), tuple(notes),
            )  # fmt: skip
        except PlanError as error:
            if error.problem.startswith(self.where):
                raise
            self._refuse(("goal",), _begun(error.problem), error.cure, error)

    def _line(self, k: int, values: Mapping[str, Any]) -> Line:
        path: Path = ("treatment", k)
        if "kind" not in values:
            self._refuse(path, "this treatment has no kind", f"Give one of {', '.join(kinds())}.")
        kind, known = self._typed(path, values, "kind", str), kinds()
        if kind not in known:
            near = difflib.get_close_matches(kind, known, n=1)
            self._refuse(
                (*path, "kind"), f"there is no treatment {kind!r}",
                f"Did you mean {near[0]}?" if near else f"The treatments are {', '.join(known)}.",
            )  # fmt: skip
        own = [one.name for one in fields(known[kind])]
        self._known(path, values, ("kind", *own, *_BESIDE))
        types = get_type_hints(known[kind])
        given = {name: self._typed(path, values, name, types[name]) for name in own if name in values}
        try:
            treatment = from_dict({"treatment": kind} | given)
        except OtoscopeError as error:
            named = next((name for name in given if f"{name} of" in error.problem or f" {name} " in error.problem), "")
            self._refuse((*path, named) if named else path, _begun(error.problem), error.cure, error)
        cost = self._typed(path, values, "cost", dict, {})
        for name in cost:
            self._typed((*path, "cost"), cost, name, float)
        evidence = self._typed(path, values, "evidence", list, [])
        try:
            return Line(
                treatment, tuple(self._evidence((*path, "evidence", n), one) for n, one in enumerate(evidence)),
                self._typed(path, values, "expected", str, ""), cost, self._typed(path, values, "rule", str, ""),
                self._typed(path, values, "reference", str, ""), f"{self.where}, line {line_of(self.lines, path)}",
            )  # fmt: skip
        except PlanError as error:
            if error.problem.startswith(self.where):
                raise
            self._refuse((*path, "cost"), _begun(error.problem), error.cure, error)

    def _evidence(self, path: Path, values: Any) -> Evidence:
        if not isinstance(values, dict):
            self._refuse(path, "this evidence is no table", "Write each under [[treatment.evidence]].")
        types = {"measure": str, "units": str, "note": str}
        names = [one.name for one in fields(Evidence)]
        self._known(path, values, names)
        for name in ("measure", "units", "value"):
            if name not in values:
                self._refuse(path, f"this evidence has no {name}", "Give it, or delete the evidence.")
        try:
            return Evidence(**{name: self._typed(path, values, name, types.get(name, float)) for name in values})
        except PlanError as error:
            if error.problem.startswith(self.where):
                raise
            self._refuse(path, _begun(error.problem), error.cure, error)

    def _known(self, path: Path, values: Mapping[str, Any], names: Sequence[str]) -> None:
        """Refuses keys that mean nothing: what is misspelt would else be left undone without a word."""
        for key in values:
            if key not in names:
                near = difflib.get_close_matches(key, names, n=1)
                self._refuse(
                    (*path, key), f"there is no key {key!r} here",
                    f"Did you mean {near[0]}?" if near else f"The keys are {', '.join(names)}.",
                )  # fmt: skip

    def _typed(self, path: Path, values: Mapping[str, Any], name: str, wanted: type, default: Any = None) -> Any:
        value = values.get(name, default)
        fits = isinstance(value, (int, float) if wanted is float else wanted)
        if not fits or (isinstance(value, bool) and wanted is not bool):
            self._refuse((*path, name), f"{name} is {value!r}", f"Give {_WORDS[wanted]}.")
        return value

    def _refuse(self, path: Path, problem: str, cure: str, error: Exception | None = None) -> NoReturn:
        raise PlanError(f"{self.where}, line {line_of(self.lines, path)}: {problem}", cure) from error


def _begun(problem: str) -> str:
    """A problem as it goes on after a colon; names and quoted values keep their letters."""
    first, _, rest = problem.partition(" ")
    return f"{first.lower()} {rest}" if first in ("A", "An", "The", "There", "No", "Attention", "Layers") else problem
