"""Annotations are checked throughout the tests: as strict as beartype is, but a whole number is a number.

The import hook of jaxtyping wraps every function, binds its arguments and checks them twice, so that the axes of arrays
agree. Few functions name axes; here the others are checked by beartype alone, once.
"""

import ast
import dataclasses
import inspect
import sys
import typing
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import FunctionType, ModuleType
from typing import Any

from beartype import BeartypeConf, beartype
from jaxtyping import AbstractArray, jaxtyped

once = beartype(conf=BeartypeConf(is_pep484_tower=True))
NAME = "__checked__"


def checked(thing: Any) -> Any:
    """A function that checks what it takes and gives, or a data class that checks what it is made of."""
    if inspect.isclass(thing):
        if dataclasses.is_dataclass(thing) and isinstance(thing.__init__, FunctionType):
            thing.__init__ = checked(thing.__init__)  # type: ignore[method-assign]
        return thing
    written = dict(thing.__annotations__)
    thing.__annotations__ = {name: _resolved(one, thing) for name, one in written.items()}
    try:
        names_axes = any(map(_names_axes, thing.__annotations__.values()))
        made = jaxtyped(thing, typechecker=once) if names_axes else once(thing)
    finally:
        thing.__annotations__ = written
    if made is not thing:
        made.__annotations__ = dict(written)
    return made


def _resolved(annotation: Any, function: Callable) -> Any:
    """What an annotation names; anything, where that is not there when the function is defined."""

    def one(value):
        return value

    one.__annotations__ = {"value": annotation}
    try:
        return typing.get_type_hints(one, function.__globals__, include_extras=True)["value"]
    except Exception:
        return Any


def _names_axes(annotation: Any) -> bool:
    if isinstance(annotation, Sequence) and not isinstance(annotation, str):  # as in Callable[[A, B], C]
        return any(map(_names_axes, annotation))
    if inspect.isclass(annotation) and issubclass(annotation, AbstractArray):
        return True
    return any(map(_names_axes, typing.get_args(annotation)))


class _Loader(SourceFileLoader):
    def path_stats(self, path: str) -> Any:
        raise OSError("compiled anew: what is stored beside the source is compiled without checks")

    def source_to_code(self, data: Any, path: Any, *, _optimize: int = -1) -> Any:
        tree = ast.parse(data, path)
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                node.decorator_list.append(_decorator(node))
            elif isinstance(node, ast.ClassDef):
                node.decorator_list.insert(0, _decorator(node))
        return compile(tree, path, "exec", dont_inherit=True, optimize=_optimize)

    def exec_module(self, module: ModuleType) -> None:
        module.__dict__[NAME] = checked
        super().exec_module(module)


def _decorator(node: ast.stmt) -> ast.expr:
    return ast.copy_location(ast.Name(NAME, ast.Load()), node)


class _Finder(MetaPathFinder):
    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if fullname.partition(".")[0] != "otoscope":
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            spec.loader = _Loader(spec.loader.name, spec.loader.path)
        return spec


def check_annotations() -> None:
    """Has whatever is imported from here on of otoscope check its annotations."""
    sys.meta_path.insert(0, _Finder())
