"""Every error of the speech room states what to do, in a full sentence."""

import ast
from pathlib import Path

import pytest

import otoscope.errors
from otoscope.speech import alignments, audio, layouts, tables, textgrids, utterance

ROOM = Path(audio.__file__).parent
CURES = {
    name: value
    for module in (alignments, audio, layouts, tables, textgrids, utterance)
    for name, value in vars(module).items()
    if name.endswith(("CURE", "_SKIP"))
}


def spoken(node: ast.expr) -> str:
    """The text of a cure, with the constants that it is made of and "..." for what is known only at run time."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(spoken(part) for part in node.values)
    if isinstance(node, ast.FormattedValue):
        return spoken(node.value)
    if isinstance(node, ast.Name):
        return CURES.get(node.id, "...")
    return "..."


def errors():
    for path in sorted(ROOM.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                kind = getattr(otoscope.errors, node.func.id, None)
                if isinstance(kind, type):
                    yield pytest.param(node, id=f"{path.stem}:{node.lineno}")


@pytest.mark.parametrize("call", list(errors()))
def test_the_cure_is_a_full_sentence(call):
    assert len(call.args) == 2, "an error has a problem and a cure"
    if isinstance(call.args[1], ast.Attribute):
        assert call.args[1].attr == "cure"  # passed on from another error
        return
    cure = spoken(call.args[1])
    assert len(cure.split()) > 2
    assert cure[0].isupper()
    assert cure.endswith((".", "..."))
