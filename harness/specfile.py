"""From a YAML mapping to a frozen specification, with every mistake told in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from harness import yamlfile
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
    return parse(cls, yamlfile.read(path), str(path))


def _one_line(cls: type[BaseModel], error: ValidationError, where: str) -> InputError:
    details = error.errors()
    # A misspelt name is told first: it often explains the field that is missing.
    first = next((d for d in details if d["type"] == "extra_forbidden"), details[0])
    path = [str(part) for part in first["loc"]]
    if first["type"] == "extra_forbidden" and len(path) == 1:
        return unknown(where, path[0], cls.model_fields)
    message = first["msg"].removeprefix("Value error, ")
    return InputError(f"{where}: {'.'.join(path)}: {message}" if path else f"{where}: {message}")
