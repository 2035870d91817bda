"""YAML as people write it, and from a YAML mapping to a frozen specification: every mistake is told in one line.

PyYAML follows YAML 1.1, where ``1e-4`` is a string and the second of two equal keys wins in silence; both are traps in
a file of learning rates. Here ``1e-4`` is a number, and a key that is given twice is an error.
"""

from __future__ import annotations

import json
import re
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError

from harness.errors import InputError, unknown

M = TypeVar("M", bound=BaseModel)


def parse(cls: type[M], value: Any, where: str) -> M:
    """``value`` (what YAML or JSON gave) as a ``cls``.

    Raises :class:`InputError` with ``where``, the field and what is wrong with it; for a name that does not exist,
    with the nearest name that does.
    """
    try:
        # Through JSON, because pydantic's strict mode takes a list for a tuple there and nowhere else.
        return cls.model_validate_json(json.dumps(value, default=str))
    except ValidationError as error:
        raise _one_line(cls, error, where) from error


def read(cls: type[M], path: Path) -> M:
    """The specification in a YAML file. Raises :class:`InputError` when it cannot be read or is not valid."""
    return parse(cls, read_yaml(path), str(path))


def _one_line(cls: type[BaseModel], error: ValidationError, where: str) -> InputError:
    details = error.errors(include_url=False)
    # A misspelt name is told first: it often explains the field that is missing.
    first = next((d for d in details if d["type"] == "extra_forbidden"), details[0])
    *parents, last = first["loc"] or ("",)
    path = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden" and (model := _model_at(cls, parents)) is not None:
        return unknown(f"{where}: {'.'.join(map(str, parents))}" if parents else where, last, model.model_fields)
    if first["type"] == "missing":
        return InputError(f"{where}: '{path}' is missing")
    message = first["msg"].removeprefix("Value error, ")
    # A whole mapping would drown the message.
    given = "" if isinstance(first["input"], dict | list) else f" (given: {first['input']!r})"
    return InputError(f"{where}: {path}: {message}{given}" if path else f"{where}: {message}")


def _model_at(cls: type[BaseModel], path: Sequence[int | str]) -> type[BaseModel] | None:
    """The model that describes the place ``path`` inside ``cls``; None where that is not one model."""
    here: Any = cls
    for part in path:
        if isinstance(part, int):
            here = next(iter(get_args(here)), None)
        elif isinstance(here, type) and issubclass(here, BaseModel) and part in here.model_fields:
            here = here.model_fields[part].annotation
        else:
            return None
    return here if isinstance(here, type) and issubclass(here, BaseModel) else None


class _Loader(yaml.SafeLoader):
    """The safe loader with the floats of YAML 1.2 and unique keys."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key '{key}' is given twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d[\d_]*)(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


def parse_yaml(text: str, where: str) -> Any:
    """The value of one YAML document. Raises :class:`InputError` with ``where`` and the line of the mistake."""
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506  (a subclass of SafeLoader)
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise InputError(f"{where}: {line}{error.problem}") from error
    except yaml.YAMLError as error:
        raise InputError(f"{where}: not YAML: {str(error).splitlines()[0]}") from error


def read_yaml(path: Path) -> Any:
    """The value of a YAML file. Raises :class:`InputError` when it cannot be read or parsed."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise InputError(f"{path}: cannot be read: {reason}") from error
    return parse_yaml(text, str(path))
