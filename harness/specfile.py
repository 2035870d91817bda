"""YAML as people write it, and from a YAML mapping to a frozen specification: every mistake is told in one line.

PyYAML follows YAML 1.1, where ``1e-4`` is a string, ``no`` is false, ``010`` is 8, ``1:30`` is 90 and the second of two
equal keys wins in silence: traps in a file of learning rates and labels. Here the words are those of YAML 1.2's core
schema: ``1e-4`` is a number; ``yes``, ``off``, ``y``, dates, ``010`` and ``1_000`` are text. A key is always the text
that the file shows, and so is a value where a specification wants text. A key that is given twice is an error.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError

from harness.errors import InputError, in_words, shown, unknown

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

M = TypeVar("M", bound=BaseModel)

#: Aliases written out, a file may not have more values than this, nor nest them deeper.
_MOST_VALUES = 20_000
_DEEPEST = 64
_MOST_BYTES = 10**7


def parse(cls: type[M], value: Any, where: str, node: yaml.Node | None = None) -> M:
    """``value`` (what YAML or JSON gave) as a ``cls``; where it wants text, as the text that ``node``'s file shows.

    Raises :class:`InputError` with ``where``, the field and what is wrong with it; for a name that does not exist,
    with the nearest name that does.
    """
    try:
        # Through JSON, because pydantic's strict mode takes a list for a tuple there and nowhere else.
        return cls.model_validate_json(json.dumps(value, default=str))
    except ValidationError as error:
        if node is not None and _put_words(value, node, error):
            return parse(cls, value, where)
        raise _one_line(cls, value, error, where) from error


def read(cls: type[M], path: Path, complete: Callable[[Any], Any] = lambda value: value) -> M:
    """The specification in a YAML file; ``complete`` adds to what the file holds.

    Raises :class:`InputError` when it cannot be read or is not valid.
    """
    value, node = _loaded(_text(path), str(path))
    return parse(cls, complete(value), str(path), node)


def _put_words(value: Any, node: yaml.Node, error: ValidationError) -> bool:
    """Put the words of the file, such as ``true`` or ``010``, where text is wanted; whether there were any."""
    some = False
    for detail in error.errors(include_url=False):
        if detail["type"] != "string_type":
            continue
        holder, name, here, place = None, None, node, value
        for part in detail["loc"]:  # some parts name a kind of source, and no place in the file
            if isinstance(here, yaml.MappingNode) and isinstance(place, dict) and part in place:
                several = [v for k, v in here.value if k.value == part]
                if not several:  # ``complete`` writes keys in its own way
                    continue
                following = several[-1]  # merged keys stand in front of a mapping's own
            elif isinstance(here, yaml.SequenceNode) and isinstance(part, int) and part < len(here.value):
                following = here.value[part]
            else:
                continue
            holder, name, here, place = place, part, following, place[part]
        if holder is not None and isinstance(here, yaml.ScalarNode) and here.value:
            holder[name] = here.value
            some = True
    return some


def _one_line(cls: type[BaseModel], value: Any, error: ValidationError, where: str) -> InputError:
    details = error.errors(include_url=False)
    # A misspelt name is told first: it often explains the field that is missing.
    first = next((d for d in details if d["type"] == "extra_forbidden"), details[0])
    *parents, last = first["loc"] or ("",)
    if first["type"] == "extra_forbidden" and (model := _model_at(cls, parents)) is not None:
        return unknown(f"{where}: {'.'.join(map(str, parents))}" if parents else where, last, model.model_fields)
    path = ".".join(_places(value, first["loc"]))
    if first["type"] == "missing":
        return InputError(f"{where}: '{path}{'.' if path else ''}{last}' is missing")
    same_place = [d for d in details if _places(value, d["loc"]) == _places(value, first["loc"])]
    return mistake(f"{where}: {path}" if path else where, same_place)


def mistake(where: str, details: Sequence[ErrorDetails]) -> InputError:
    """One line for what pydantic says of one value: more than one error where it may be of several types."""
    given = details[0]["input"]
    if details[0]["type"] == "literal_error" and isinstance(given, str):
        return unknown(where, given, re.findall(r"'([^']+)'", details[0]["ctx"]["expected"]))
    # A whole mapping would drown the message, and nothing needs no telling.
    said = "" if isinstance(given, dict | list) or given == "" else f" (given: {shown(given)})"
    return InputError(f"{where}: {' or '.join(dict.fromkeys(map(in_words, details)))}{said}")


def _places(value: Any, path: Sequence[int | str]) -> list[str]:
    """The parts of ``path`` that are places in ``value``; pydantic also puts the names of types into it."""
    places = []
    for part in path:
        known: Any = dict(enumerate(value)) if isinstance(value, list) else value
        if isinstance(known, dict) and part in known:
            value = known[part]
            places.append(str(part))
    return places


def _model_at(cls: type[BaseModel], path: Sequence[int | str]) -> type[BaseModel] | None:
    """The model that describes the place ``path`` inside ``cls``; None where that is not one model."""
    here: Any = cls
    for part in path:
        here = _not_null(here)
        if isinstance(part, int):
            here = next(iter(get_args(here)), None)
        elif isinstance(here, type) and issubclass(here, BaseModel) and part in here.model_fields:
            here = here.model_fields[part].annotation
        else:
            return None
    here = _not_null(here)
    return here if isinstance(here, type) and issubclass(here, BaseModel) else None


def _not_null(kind: Any) -> Any:
    """``X`` for the type ``X | None``; any other type as it is."""
    others = [one for one in get_args(kind) if one is not type(None)]
    return others[0] if type(None) in get_args(kind) and len(others) == 1 else kind


class _Loader(yaml.SafeLoader):
    """The words of YAML 1.2's core schema, unique keys that are always text, and nothing but plain values."""

    yaml_implicit_resolvers: ClassVar[dict[str, Any]] = {}  # type: ignore[misc]  # the stubs take it for the instance's
    yaml_constructors: ClassVar[dict[Any, Any]] = {}

    _values = _depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """The next node; the limits hold while the file is read, so that nobody waits for the end of a huge one."""
        mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
        self._values, self._depth = self._values + 1, self._depth + 1
        if self._depth > _DEEPEST + 1:
            raise _too_deep(mark)
        if self._values > _MOST_VALUES:
            raise _too_many(mark)
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = self._key(key_node)
            if key in seen:
                raise _mistake(key_node, f"the key '{key}' is given twice")
            seen.add(key)
        self.flatten_mapping(node)
        return {
            self._key(key_node): self.construct_object(value_node, deep=deep) for key_node, value_node in node.value
        }

    def _key(self, node: yaml.Node) -> str:
        if not isinstance(node, yaml.ScalarNode):
            raise _mistake(node, "a list or a mapping cannot be a key")
        return str(node.value)

    def number(self, node: yaml.ScalarNode) -> int | float:
        """The number that a scalar shows. Raises ConstructorError for one that is not finite."""
        try:
            number = int(node.value) if node.tag.endswith(":int") else float(node.value)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise _mistake(node, f"{node.value[:40]} is not a finite number (quote it if it is a word)")
        return number

    def refuse(self, node: yaml.Node) -> Any:
        """Raise ConstructorError: a tag could make anything of a value."""
        tag = node.tag.replace("tag:yaml.org,2002:", "!!")
        raise _mistake(node, f"the tag {shown(tag)} is not read here; write the value without it")

    def truth(self, node: yaml.ScalarNode) -> bool:
        """True or False."""
        return str(node.value).lower() == "true"


def _mistake(node: yaml.Node, problem: str) -> yaml.constructor.ConstructorError:
    return yaml.constructor.ConstructorError(None, None, problem, node.start_mark)


def _too_deep(mark: Any) -> yaml.constructor.ConstructorError:
    return yaml.constructor.ConstructorError(None, None, f"values are nested more than {_DEEPEST} deep", mark)


def _too_many(mark: Any) -> yaml.constructor.ConstructorError:
    return yaml.constructor.ConstructorError(None, None, f"more than {_MOST_VALUES} values, aliases written out", mark)


for _name, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ("~", "n", "N", "")),
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?(0|[1-9]\d*)", "-+0123456789"),
    ("float", r"[-+]?(\.\d+|(0|[1-9]\d*)(\.\d*([eE][-+]?\d+)?|[eE][-+]?\d+))", "-+.0123456789"),
    ("float", r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", "-+."),
    ("merge", r"<<", "<"),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_name}", re.compile(rf"(?:{_pattern})$"), list(_first))
_CONSTRUCTORS: dict[str, Any] = {
    "null": yaml.SafeLoader.construct_yaml_null,
    "bool": _Loader.truth,
    "int": _Loader.number,
    "float": _Loader.number,
    "str": yaml.SafeLoader.construct_yaml_str,
    "seq": yaml.SafeLoader.construct_yaml_seq,
    "map": yaml.SafeLoader.construct_yaml_map,
}
for _name, _construct in _CONSTRUCTORS.items():
    _Loader.add_constructor(f"tag:yaml.org,2002:{_name}", _construct)
_Loader.add_constructor(None, _Loader.refuse)


def parse_yaml(text: str, where: str) -> Any:
    """The value of one YAML document. Raises :class:`InputError` with ``where`` and the line of the mistake."""
    return _loaded(text, where)[0]


def _loaded(text: str, where: str) -> tuple[Any, yaml.Node | None]:
    """The value of a document, and the tree of nodes that it was made from."""
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None, None
        _check_size(node, {}, 0)
        return loader.construct_document(node), node
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise InputError(f"{where}: {line}{_in_words(error.problem or 'not YAML')}") from error
    except yaml.YAMLError as error:
        raise InputError(f"{where}: not YAML: {str(error).splitlines()[0]}") from error


def _in_words(problem: str) -> str:
    """A problem of PyYAML's in words of the file instead of those of its parser."""
    for parsers, ours in (
        ("'<stream end>'", "the end"),
        ("'<block end>'", "the end of the block"),
        ("the node content", "a value"),
        ("found character '\\t' that cannot start any token", "a tab cannot indent; use spaces"),
    ):
        problem = problem.replace(parsers, ours)
    return problem


def _check_size(node: yaml.Node, sizes: dict[int, int | None], depth: int) -> int:
    """Number of values below ``node`` with aliases written out; a few lines of them can stand for billions."""
    if depth > _DEEPEST:
        raise _too_deep(node.start_mark)
    if id(node) in sizes:
        size = sizes[id(node)]
        if size is None:
            raise _mistake(node, "an alias stands inside the value that it names")
        return size
    sizes[id(node)] = None
    children = [child for pair in node.value for child in pair] if isinstance(node, yaml.MappingNode) else node.value
    below = () if isinstance(node, yaml.ScalarNode) else children
    size = 1 + sum(_check_size(child, sizes, depth + 1) for child in below)
    if size > _MOST_VALUES:
        raise _too_many(node.start_mark)
    sizes[id(node)] = size
    return size


def read_yaml(path: Path) -> Any:
    """The value of a YAML file. Raises :class:`InputError` when it cannot be read or parsed."""
    return parse_yaml(_text(path), str(path))


def _text(path: Path) -> str:
    try:
        if (size := path.stat().st_size) > _MOST_BYTES:
            raise InputError(f"{path}: {size / 10**6:.3g} MB are more than a specification may have, 10 MB")
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise InputError(f"{path}: cannot be read: {reason}") from error
