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

from pydantic import AfterValidator, BeforeValidator, Field, JsonValue, TypeAdapter, ValidationError

from harness import catalog, notebooks, own_method, specfile
from harness.errors import InputError, hint
from harness.execution import FIELDS, Execution

__all__ = ["Callable", "JsonValue", "Literal", "Mapping", "Sequence"]


def each_once(values: list[Any]) -> list[Any]:
    """``values``. Raises ValueError where one of them stands there twice."""
    if len({repr(value) for value in values}) < len(values):
        raise ValueError("a value is given twice")
    return values


def _of_folder(path: str) -> str:
    if not Path(path).is_absolute():
        raise ValueError("must be an absolute path")
    if not Path(path).is_dir():
        raise ValueError("there is no such folder")
    return path


def _named(fields: Any) -> Any:
    if isinstance(fields, dict):
        for name in fields:
            if name not in FIELDS:
                raise ValueError(f"unknown name {name!r}; {hint(name, FIELDS)}")
    return fields


def _unusual(execution: Execution) -> Execution:
    if not execution.asked:
        raise ValueError("must name a field that differs from the usual way to train")
    return execution


#: How many there are of something; more than a million of anything is a mistake, and would fill any memory.
Count = Annotated[int, Field(ge=1, le=10**6)]
#: Enough to compare with each other.
Several = Annotated[int, Field(ge=2, le=10**6)]
Natural = Annotated[int, Field(ge=0, le=10**6)]
Positive = Annotated[float, Field(gt=0, le=10**6, allow_inf_nan=False)]
Weight = Annotated[float, Field(ge=0, le=10**6, allow_inf_nan=False)]
#: A part of a whole, the whole included.
Part = Annotated[float, Field(ge=0, le=1)]
#: The probability that a unit is dropped; with 1 nothing would be left.
Dropout = Annotated[float, Field(ge=0, lt=1)]
Word = Annotated[str, Field(min_length=1)]
#: Of a list, that no value is given twice.
Once = AfterValidator(each_once)
#: Numbers that are tried one after the other.
Counts = Annotated[list[Count], Field(min_length=1), Once]
#: The absolute path of a folder that there is: a trial runs in another folder than its plan.
Folder = Annotated[Word, AfterValidator(_of_folder)]
#: Fields of the block ``execution`` that differ from the usual ones.
Fields = Annotated[Execution, BeforeValidator(_named), AfterValidator(_unusual)]
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
    places = catalog.STUDIES[name].functions if room == "methods" and name in catalog.STUDIES else ()
    kinds = [_of_function(*place.split(".")) for place in places or (f"{room}/{name}.{_FUNCTIONS[room]}",)]
    return {argument: kind for one in kinds for argument, kind in one.items()}


def _of_function(place: str, name: str) -> dict[str, Any]:
    """Argument -> type of the function called ``name`` in ``ROOM/FILE``; of those with a default."""
    tree = ast.parse((Path(__file__).parent / f"{place}.py").read_text(encoding="utf-8"))
    function, known = _function(tree, name)
    if function is None:
        raise LookupError(f"{place}.py has no function {name}")
    given = function.args
    optional = given.args[len(given.args) - len(given.defaults) :]
    return _types({each.arg: each.annotation for each in optional if each.annotation}, known)


def _function(tree: ast.Module, name: str) -> tuple[ast.FunctionDef | None, dict[str, Any]]:
    """The function called ``name``, and what the annotations before it may use."""
    known = dict(globals())
    found = None
    for statement in tree.body:
        match statement:
            case ast.Assign(
                targets=[ast.Name(id=alias)], value=ast.Subscript(value=ast.Name(id="Literal" | "Annotated"))
            ):
                known |= _types({alias: statement.value}, known)
            case ast.FunctionDef(name=here) if here == name:
                found = statement  # of several, Python keeps the last
    return found, known


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

#: Names that mean something else in ``--only`` and ``exclude``, and in a checkpoint.
_TAKEN = ("trial_id", "train_examples", "parent")


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


def _tree(path: Path) -> ast.Module:
    """The source of a user's own file. Raises :class:`InputError` for what is no Python."""
    try:
        return ast.parse(path.read_text(encoding="utf-8"))
    except SyntaxError as error:
        line = "" if error.lineno is None else f"line {error.lineno} "
        raise InputError(f"{path}: {line}is not Python: {error.msg}") from error
    except (MemoryError, RecursionError) as error:  # what the parser says of brackets and signs within each other
        raise InputError(f"{path}: is nested too deep to be read as Python") from error
    except ValueError as error:
        raise InputError(f"{path}: is not Python in UTF-8") from error


@lru_cache(maxsize=256)
def _own(path: Path, _modified: int) -> Mapping[str, Argument]:
    tree = _tree(path)
    function, known = _function(tree, "apply")
    given = ast.arguments([], [], None, [], [], None, []) if function is None else function.args
    places = [*given.posonlyargs, *given.args][1:]
    if not (given.posonlyargs or given.args) or len(given.defaults) > len(places):
        raise InputError(f"{path}: a method needs a function 'def apply(base, ...)' that takes the base model first")
    if given.posonlyargs[1:]:
        raise InputError(f"{path}: apply: arguments are given by name; move '/' in front of '{places[0].arg}'")
    for star in (given.vararg, given.kwarg):
        if star is not None:
            raise InputError(f"{path}: apply: '*{star.arg}' cannot be checked; name each argument")
    defaults = [*[None] * (len(places) - len(given.defaults)), *given.defaults, *given.kw_defaults]
    pairs = zip([*places, *given.kwonlyargs], defaults, strict=True)
    return {arg.arg: _argument(arg, default, known, f"{path}: apply") for arg, default in pairs if arg.arg != _GIVEN}


def _is_plain(value: Any) -> bool:
    """Whether JSON gives ``value`` back as it is; a tuple comes back as a list, the key 1 as a text."""
    return repr(json.loads(json.dumps(value, allow_nan=False))) == repr(value)


def _argument(arg: ast.arg, default: ast.expr | None, known: dict[str, Any], where: str) -> Argument:
    where = f"{where}: argument '{arg.arg}'"
    if arg.arg in (*notebooks.COMMON, *notebooks.RUNNER, *notebooks.METHOD, *_TAKEN):
        raise InputError(f"{where} has a name that every trial uses for something else; give it another one")
    if default is None:
        raise InputError(f"{where} has no default; give it one, such as {arg.arg}=8")
    try:
        value = ast.literal_eval(default)
        if not _is_plain(value):
            raise ValueError
    except (ValueError, TypeError, MemoryError, RecursionError) as error:
        raise InputError(
            f"{where}: its default is nothing that YAML can write: a number, a text, true or false, null, or a list or "
            "a mapping with text as keys"
        ) from error
    try:
        kind: Any = _types({arg.arg: arg.annotation}, known)[arg.arg] if arg.annotation else None
        TypeAdapter(kind)
    except Exception:  # what the file imports is not known here; the default then says what a value may be
        kind = None
    if kind is not None:
        check(value, kind, where)
    return Argument(value, kind)
