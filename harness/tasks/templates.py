"""Templates such as ``Question: {question}`` and regular expressions, checked when a specification is read."""

from __future__ import annotations

import re
from string import Formatter
from typing import Annotated

from pydantic import AfterValidator

#: Kind of task -> the field of a completion that its own answers fill in.
FILLED_IN = {"classification": "label_word", "regression": "number", "multiple_choice": "choice"}


def placeholders(template: str) -> tuple[str, ...]:
    """Names of the fields in a template.

    Only plain ``{field}`` is allowed (``{{`` and ``}}`` are braces), so a template cannot reach into objects. Raises
    ValueError for anything else, with what to write instead.
    """
    names = []
    for _, name, format_spec, conversion in Formatter().parse(template):
        if name is None:
            continue
        if not name.isidentifier() or format_spec or conversion:
            plain = re.sub(r"\W+", "_", name).strip("_") or "answer"
            plain = plain if plain.isidentifier() else f"column_{plain}"
            raise ValueError(
                f"'{{{name}}}': a template holds only plain fields such as {{question}}; give any other column or a "
                f"part of one a plain name first, as in fields: {{{plain}: '{name}'}}"
            )
        names.append(name)
    return tuple(names)


def _template(value: str) -> str:
    placeholders(value)
    return value


def _expression(value: str) -> str:
    try:
        re.compile(value)
    except re.error as error:
        raise ValueError(f"'{value}' is not a regular expression: {error}") from error
    return value


Template = Annotated[str, AfterValidator(_template)]
Expression = Annotated[str, AfterValidator(_expression)]
