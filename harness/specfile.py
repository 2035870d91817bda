"""From a YAML mapping to a frozen specification, with every mistake told in one line."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

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
    """The model that describes the place ``path`` inside ``cls``; null where that is not one model."""
    here: Any = cls
    for part in path:
        if isinstance(part, int):
            here = next(iter(get_args(here)), None)
        elif isinstance(here, type) and issubclass(here, BaseModel) and part in here.model_fields:
            here = here.model_fields[part].annotation
        else:
            return None
    return here if isinstance(here, type) and issubclass(here, BaseModel) else None
