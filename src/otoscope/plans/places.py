"""Where keys and tables stand in a TOML file, so that an error can name its line."""

from __future__ import annotations

import re
from collections.abc import Mapping

Path = tuple[str | int, ...]

_TABLE = re.compile(r"\[\[(?P<array>[^\[\]]+)\]\]|\[(?P<table>[^\[\]]+)\]")
_KEY = re.compile(r"""(?P<key>[A-Za-z0-9_-]+|"[^"]*"|'[^']*')\s*[.=]""")


def line_numbers(text: str) -> dict[Path, int]:
    r"""Lines of tables and keys, from 1.

    Args:
        text: TOML that can be read.

    Returns:
        Path -> line. A table in an array is the name of the array and its number, from 0: ("treatment", 0, "units").
        What stands within an inline table has the line of the key that the table is the value of.

    >>> line_numbers('goal = "size"\n[[treatment]]\nkind = "freeze"\n')
    {('goal',): 1, ('treatment', 0): 2, ('treatment', 0, 'kind'): 3}
    """
    found: dict[Path, int] = {}
    counts: dict[Path, int] = {}
    table: Path = ()
    within = ""  # what an unfinished value waits for: quotes of many lines, or brackets
    for number, line in enumerate(text.splitlines(), start=1):
        rest = line
        if not within:
            stripped = line.strip()
            header, key = _TABLE.match(stripped), _KEY.match(stripped)
            if header:
                table = _table(header, counts)
                found.setdefault(table, number)
                continue
            if key:
                found.setdefault((*table, key["key"].strip("\"'")), number)
                rest = stripped[key.end() - 1 :]
        within = _after(rest, within)
    return found


def line_of(lines: Mapping[Path, int], path: Path) -> int:
    """The line of a key, or of the nearest table that holds it; 1 where there is none."""
    for length in range(len(path), 0, -1):
        for place in (path[:length], (*path[:length], 0)):  # the array itself, or its first table
            if place in lines:
                return lines[place]
    return 1


def _table(header: re.Match[str], counts: dict[Path, int]) -> Path:
    """The path of a table; of arrays on the way it is the last one."""
    names = [name.strip().strip("\"'") for name in (header["array"] or header["table"]).split(".")]
    path: Path = ()
    for k, name in enumerate(names):
        path = (*path, name)
        if header["array"] and k == len(names) - 1:
            counts[path] = counts.get(path, -1) + 1
        if path in counts:
            path = (*path, counts[path])
    return path


def _after(line: str, within: str) -> str:
    """What is open at the end of a line: quotes of many lines, and brackets around them."""
    k = 0
    while k < len(line):
        quotes = next((one for one in ('"""', "'''", '"', "'") if line.startswith(one, k)), "")
        if within.endswith(('"', "'")):
            end = '"""' if within.endswith('"') else "'''"
            if line[k] == "\\" and end == '"""':
                k += 2
            elif line.startswith(end, k):
                within, k = within[:-1], k + 3
            else:
                k += 1
        elif line[k] == "#":
            break
        elif quotes in ('"""', "'''"):
            within, k = within + quotes[0], k + 3
        elif quotes:
            k = _string_end(line, k, quotes)
        else:
            if line[k] in "[{":
                within += line[k]
            elif line[k] in "]}":
                within = within[:-1]
            k += 1
    return within


def _string_end(line: str, start: int, quote: str) -> int:
    """The place after a string of one line."""
    k = start + 1
    while k < len(line) and line[k] != quote:
        k += 2 if line[k] == "\\" and quote == '"' else 1
    return k + 1
