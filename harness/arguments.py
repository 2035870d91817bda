"""The values that an argument may have, as the function that takes it declares them: ``r: Count = 8``.

A method's ``apply`` and an objective's ``fit`` say it in their annotations, and nothing else does. A sweep is checked
against them when it is planned, and the same check stands before every call from a notebook. Planning imports no torch,
so the annotations are read from the source: they may use what this file defines or imports, and aliases of the
function's own file.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any, Literal, get_type_hints

from pydantic import Field, JsonValue, TypeAdapter, ValidationError

from harness import catalog, notebooks, own_method, specfile
from harness.errors import InputError

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


def declared(room: str, name: str) -> Mapping[str, Any]:
    """Argument -> type of the method or objective called ``name``; ``room`` is 'methods' or 'objectives'.

    Arguments without a default are left out: the harness gives those. A method may be the path of a user's own file;
    arguments without a type are left out there.
    """
    if own_method.is_path(name):
        return {argument: one.kind for argument, one in own(name).items() if one.kind is not None}
    return _declared(room, name)


@lru_cache(maxsize=256)
def _declared(room: str, name: str) -> Mapping[str, Any]:
    place, called = f"{room}/{name}", _FUNCTIONS[room]
    if name in catalog.STUDIES and (study := catalog.STUDIES[name].function) is not None:
        place, called = study, study.rpartition("/")[2]
    tree = ast.parse((Path(__file__).parent / f"{place}.py").read_text(encoding="utf-8"))
    function, known = _function(tree, called)
    if function is None:
        raise LookupError(f"{place}.py has no function {called}")
    given = function.args
    optional = given.args[len(given.args) - len(given.defaults) :]
    return _types({each.arg: each.annotation for each in optional if each.annotation}, known)


def _function(tree: ast.Module, name: str) -> tuple[ast.FunctionDef | None, dict[str, Any]]:
    """The function called ``name``, and what the annotations before it may use."""
    known = dict(globals())
    for statement in tree.body:
        match statement:
            case ast.Assign(
                targets=[ast.Name(id=alias)], value=ast.Subscript(value=ast.Name(id="Literal" | "Annotated"))
            ):
                known |= _types({alias: statement.value}, known)
            case ast.FunctionDef(name=here) if here == name:
                return statement, known
    return None, known


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


# --- a method of a user's own ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Argument:
    """An argument of a method of a user's own."""

    default: Any
    kind: Any = None
    """Its type; None where the file names none that can be read without running it."""


#: What the harness gives to a method that asks for it.
_GIVEN = "train_steps"


def own(file: str) -> Mapping[str, Argument]:
    """The arguments of ``apply`` in a user's own file, read without running it, in their order and without the base.

    Raises :class:`InputError`, in one line, for a file that is missing or no Python, has no ``apply(base, ...)``, or
    whose arguments a sweep could not set.
    """
    path = Path(file).expanduser()
    try:
        return _own(path, path.stat().st_mtime_ns)
    except OSError as error:
        raise InputError(f"method: there is no file {file}") from error


@lru_cache(maxsize=256)
def _own(path: Path, _modified: int) -> Mapping[str, Argument]:
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except SyntaxError as error:
        raise InputError(f"{path}: line {error.lineno} is not Python: {error.msg}") from error
    except ValueError as error:
        raise InputError(f"{path}: is not Python in UTF-8") from error
    function, known = _function(tree, "apply")
    given = ast.arguments([], [], None, [], [], None, []) if function is None else function.args
    places = [*given.posonlyargs, *given.args][1:]
    if not (given.posonlyargs or given.args) or len(given.defaults) > len(places):
        raise InputError(f"{path}: a method needs a function 'def apply(base, ...)' that takes the base model first")
    for star in (given.vararg, given.kwarg):
        if star is not None:
            raise InputError(f"{path}: apply: '*{star.arg}' cannot be checked; name each argument")
    defaults = [*[None] * (len(places) - len(given.defaults)), *given.defaults, *given.kw_defaults]
    pairs = zip([*places, *given.kwonlyargs], defaults, strict=True)
    return {arg.arg: _argument(arg, default, known, f"{path}: apply") for arg, default in pairs if arg.arg != _GIVEN}


def _argument(arg: ast.arg, default: ast.expr | None, known: dict[str, Any], where: str) -> Argument:
    where = f"{where}: argument '{arg.arg}'"
    if arg.arg in (*notebooks.COMMON, *notebooks.RUNNER, *notebooks.METHOD):
        raise InputError(f"{where} has a name that every trial uses for something else; give it another one")
    if default is None:
        raise InputError(f"{where} has no default; give it one, such as {arg.arg}=8")
    try:
        value = ast.literal_eval(default)
        json.dumps(value, allow_nan=False)
    except (ValueError, TypeError) as error:
        raise InputError(f"{where}: its default is nothing that YAML can write") from error
    try:
        kind: Any = _types({arg.arg: arg.annotation}, known)[arg.arg] if arg.annotation else None
        TypeAdapter(kind)
    except Exception:  # what the file imports is not known here; the default then says what a value may be
        kind = None
    if kind is not None:
        check(value, kind, where)
    return Argument(value, kind)
