"""Multiple choice: the answers of a row, and which of them is right."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from harness.errors import InputError
from harness.tasks import keys
from harness.tasks.templates import placeholders

if TYPE_CHECKING:
    from harness.tasks.read import Row
    from harness.tasks.spec import TaskSpec


def template_fields(spec: TaskSpec) -> frozenset[str]:
    """The fields in the templates of the choices; none where a field holds their list."""
    templates = () if isinstance(spec.choices, str) else spec.choices
    return frozenset(name for template in templates for name in placeholders(template))


def list_fields(spec: TaskSpec) -> tuple[str, ...]:
    """The fields that hold a list: of the choices, of their keys, of both or of neither."""
    return tuple(name for name in (spec.choices, spec.choice_keys) if isinstance(name, str))


def in_order(spec: TaskSpec, named: Any) -> list[Any] | None:
    """The values of an object whose names are the keys of the choices, in the order of the keys; None if they are not.

    Objects of one file may have their names in different orders.
    """
    if not isinstance(named, Mapping) or isinstance(spec.choice_keys, str) or {*named} != {*spec.choice_keys}:
        return None
    return [named[key] for key in spec.choice_keys]


def texts(spec: TaskSpec, row: Row) -> tuple[str, ...]:
    """The answers of a row; lists stand in it as JSON.

    They keep their order, but where the first one is right they are sorted: a model that always picks one place must
    not look clever.
    """
    if isinstance(spec.choices, str):
        several = tuple(text.strip() for text in json.loads(row[spec.choices]))
    else:
        several = tuple(template.format_map(row).strip() for template in spec.choices)
    return several if spec.label is not None else tuple(sorted(several))


def right(spec: TaskSpec, row: Row, where: str = "row") -> int:
    """Index of the right answer; of a task without a label it is the first of its YAML file or list.

    Raises :class:`InputError` for a label that names none of them, and for more or fewer keys in a row than answers.
    """
    several = texts(spec, row)
    if spec.label is None:
        first = json.loads(row[spec.choices])[0] if isinstance(spec.choices, str) else spec.choices[0].format_map(row)
        return several.index(first.strip())
    count = len(several)
    given = json.loads(row[spec.choice_keys]) if isinstance(spec.choice_keys, str) else spec.choice_keys
    if isinstance(spec.choice_keys, str) and len(given) != count:
        raise InputError(f"{where}: '{spec.choice_keys}' has {len(given)} keys for {count} choices")
    several_keys = (list(given) or list(map(str, range(count))))[:count]
    key = keys.named(row[spec.label], several_keys)
    if key is None:
        valid = ", ".join(f"'{one}'" for one in several_keys)
        hint = "" if spec.choice_keys else "; name them in 'choice_keys' if they are not counted from 0"
        raise InputError(f"{where}: '{row[spec.label]}' is none of the {count} choices; valid: {valid}{hint}")
    return several_keys.index(key)
