"""The one exception for bad input: everything a user can mend is told in one line."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the command line imports this file at its start, which must stay fast
    from pydantic_core import ErrorDetails


class InputError(ValueError):
    """Something the user wrote is not valid. Its message is one line: where, what, and what would be valid.

    The command line prints it without a traceback and exits with code 2; a notebook shows it without one, too.
    """

    def _render_traceback_(self) -> list[str]:
        """What IPython shows."""
        return [f"{type(self).__name__}: {self}"]


#: A longer list of valid names would drown the message.
_MOST_NAMES = 30


def unknown(where: str, name: object, valid: Iterable[str]) -> InputError:
    """An :class:`InputError` for a name that does not exist, with the nearest name that does."""
    return InputError(f"{where}: unknown name {shown(str(name))}; {hint(name, valid)}")


def hint(name: object, valid: Iterable[str]) -> str:
    """'did you mean …?' with the name most like ``name``; where none is like it, all of them."""
    names = sorted(set(valid))
    if near := nearest(name, names):
        return f"did you mean '{near}'?"
    if not names:
        return "it takes none"
    more = len(names) - _MOST_NAMES
    return f"valid: {', '.join(names[:_MOST_NAMES])}" + (f" and {more} more" if more > 0 else "")


def nearest(name: object, valid: Iterable[str]) -> str | None:
    """The name most like ``name``, whatever its case; None if none is like it."""
    by_folded = {one.casefold(): one for one in valid}
    near = difflib.get_close_matches(str(name).casefold()[:100], list(by_folded), n=1, cutoff=0.5)
    return by_folded[near[0]] if near else None


def shown(value: object) -> str:
    """``value`` as YAML would show it, text in quotes, no longer than a message can bear."""
    if isinstance(value, str):
        return f"'{cut(value)}'"
    return cut(json.dumps(value, ensure_ascii=False, default=str))


def cut(text: str) -> str:
    """The text in one line, its end left out where it is long."""
    line = " ".join(text.split())
    return line if len(line) <= 80 else f"{line[:77]}..."


#: pydantic's kinds of errors in the words of whoever wrote the value; ``{}`` names come with the error.
_WORDS = {
    "bool_type": "must be true or false",
    "dict_type": "must be a mapping, such as {{key: value}}",
    "finite_number": "must be a finite number",
    "float_type": "must be a number",
    "greater_than": "must be greater than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "json_invalid": "is not JSON: {error}",
    "int_from_float": "must be a whole number",
    "int_type": "must be a whole number",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be at most {le}",
    "list_type": "must be a list, such as [a, b]",
    "literal_error": "must be {expected}",
    "mapping_type": "must be a mapping, such as {{key: value}}",
    "missing": "is missing",
    "model_type": "must be a mapping, such as {{key: value}}",
    "string_pattern_mismatch": "must match {pattern}",
    "string_too_long": "must be at most {max_length} sign(s) long",
    "string_too_short": "must not be empty",
    "string_type": "must be text",
    "too_short": "must not be empty",
    "tuple_type": "must be a list, such as [a, b]",
}


def in_words(detail: ErrorDetails) -> str:
    """What is wrong, of one of pydantic's errors, in the user's words: 'must be at least 1'."""
    context: Mapping[str, Any] = {
        name: f"{value:g}" if isinstance(value, float) else value for name, value in (detail.get("ctx") or {}).items()
    }
    if detail["type"] in _WORDS:
        return _WORDS[detail["type"]].format(**context)
    return detail["msg"].removeprefix("Value error, ").replace("Input should", "must")
