"""The values that an argument may have, as the function that takes it declares them: ``r: Count = 8``.

A method's ``apply`` and an objective's ``fit`` say it in their annotations, and nothing else does. A sweep is checked
against them when it is planned, and the same check stands before every call from a notebook. Planning imports no torch,
so the annotations are read from the source: they may use what this file defines or imports, and aliases of the
function's own file.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any, Literal, get_type_hints

from pydantic import Field, JsonValue, TypeAdapter, ValidationError

from harness import specfile

__all__ = ["Callable", "JsonValue", "Literal", "Mapping", "Sequence"]

#: How many there are of something; more than a million of anything is a mistake, and would fill any memory.
Count = Annotated[int, Field(ge=1, le=10**6)]
#: Enough to compare with each other.
Several = Annotated[int, Field(ge=2, le=10**6)]
Natural = Annotated[int, Field(ge=0, le=10**6)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
#: A part of a whole, the whole included.
Part = Annotated[float, Field(ge=0, le=1)]
#: The probability that a unit is dropped; with 1 nothing would be left.
Dropout = Annotated[float, Field(ge=0, lt=1)]
Word = Annotated[str, Field(min_length=1)]
#: One name or pattern of modules, or a list of names.
Modules = Word | Annotated[list[Word], Field(min_length=1)]

#: The function of each room whose arguments a user gives.
_FUNCTIONS = {"methods": "apply", "objectives": "fit"}


@lru_cache(maxsize=256)
def declared(room: str, name: str) -> Mapping[str, Any]:
    """Argument -> type of the method or objective called ``name``; ``room`` is 'methods' or 'objectives'.

    Arguments without a default are left out: the harness gives those.
    """
    tree = ast.parse((Path(__file__).parent / room / f"{name}.py").read_text(encoding="utf-8"))
    known = dict(globals())
    for statement in tree.body:
        match statement:
            case ast.Assign(
                targets=[ast.Name(id=alias)], value=ast.Subscript(value=ast.Name(id="Literal" | "Annotated"))
            ):
                known |= _types({alias: statement.value}, known)
            case ast.FunctionDef(name=function, args=given) if function == _FUNCTIONS[room]:
                optional = given.args[len(given.args) - len(given.defaults) :]
                return _types({each.arg: each.annotation for each in optional if each.annotation}, known)
    raise LookupError(f"{room}/{name}.py has no function {_FUNCTIONS[room]}")


def _types(annotations: Mapping[str, ast.expr], known: dict[str, Any]) -> dict[str, Any]:
    """What the annotations mean, by name, among the names that are ``known``."""
    written = {name: ast.unparse(annotation) for name, annotation in annotations.items()}
    return get_type_hints(SimpleNamespace(__annotations__=written), known, include_extras=True)


def check(value: Any, kind: Any, where: str) -> None:
    """Raise :class:`InputError`, which names ``where``, unless ``value`` is of the type ``kind``."""
    try:
        TypeAdapter(kind).validate_python(value, strict=True)
    except ValidationError as error:
        raise specfile.mistake(where, error.errors(include_url=False)) from error


def check_all(room: str, name: str, given: Mapping[str, Any]) -> None:
    """:func:`check` every argument of ``given`` that the function declares."""
    kinds = declared(room, name)
    for argument, value in given.items():
        if argument in kinds:
            check(value, kinds[argument], f"{name}.{argument}")
