"""Values inside values: dotted paths into lists and objects, and lists that a file holds as text."""

from __future__ import annotations

import ast
import io
import itertools
import json
import re
import tokenize
from collections.abc import Mapping, Sequence
from typing import Any

from harness.tasks.turns import are_turns

#: What :func:`at` gives where a path leads nowhere.
NOTHING: Any = object()

#: A place in a list, from its end where it is negative.
_PLACE = re.compile("-?[0-9]{1,9}")

#: Longer texts are no prints of lists.
_LONGEST_PRINT = 1_000_000


def at(value: Any, path: Sequence[str]) -> Any:
    """What stands at ``path`` inside lists and objects; :data:`NOTHING` where it leads nowhere.

    A number chooses from a list, -1 the last. A name is looked up in each object of a list: ``answers.text``; an object
    without it gives None, so that places stay. A star stands for all values of an object, whatever their names.
    """
    for place, part in enumerate(path):
        if isinstance(value, Mapping) and part == "*":
            value = list(value.values())
        elif isinstance(value, Mapping):
            value = value.get(part, NOTHING)
        elif isinstance(value, (list, tuple)) and _PLACE.fullmatch(part):
            value = value[int(part)] if -len(value) <= int(part) < len(value) else NOTHING
        elif isinstance(value, (list, tuple)):
            inner = [at(one, path[place:]) for one in value]
            found = any(one is not NOTHING for one in inner)
            return [None if one is NOTHING else one for one in inner] if found else NOTHING
        else:
            return NOTHING
        if value is NOTHING:
            return NOTHING
    return value


def list_in(text: str) -> Any:
    """The list, or the dictionary in Python's spelling, that ``text`` is the print of; None if it is plain text.

    An object in JSON may be an answer that a task asks for, and so may a list of numbers: those stay text. Raises
    ValueError for the print of a NumPy array, which does not tell where one text ends and the next begins.
    """
    value = print_in(text)
    if isinstance(value, list) and any(isinstance(one, (str, dict, list)) for one in value):
        if _is_array(text):
            raise ValueError("it is the print of a NumPy array, without commas; write the file anew as JSON lines")
        return value
    return value if isinstance(value, dict) and value and not _is_json(text) else None


def print_in(text: str) -> Any:
    """The list or object that ``text`` is, in the spelling of JSON or of Python; None if it is neither."""
    stripped = text.strip()
    if not (stripped.startswith(("[", "{")) and stripped.endswith(("]", "}"))) or len(stripped) > _LONGEST_PRINT:
        return None
    for parse in (json.loads, ast.literal_eval):
        try:
            value = parse(stripped)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            continue
        return value if isinstance(value, (list, dict)) else None
    return None


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _is_array(text: str) -> bool:
    """Whether two texts stand side by side without a comma, which Python would join."""
    if _is_json(text):
        return False
    every = [token.type for token in tokenize.generate_tokens(io.StringIO(text.strip()).readline)]
    tokens = [kind for kind in every if kind not in (tokenize.NL, tokenize.NEWLINE)]
    return any(one == other == tokenize.STRING for one, other in itertools.pairwise(tokens))


def lists_inside(value: Any, depth: int = 3) -> dict[str, int]:
    """Dotted path -> length of each list of objects inside an object: where rows may be."""
    if not isinstance(value, Mapping) or depth == 0:
        return {}
    paths: dict[str, int] = {}
    for name, inner in value.items():
        if isinstance(inner, list) and inner and all(isinstance(one, Mapping) for one in inner):
            paths[str(name)] = len(inner)
        else:
            paths |= {f"{name}.{path}": size for path, size in lists_inside(inner, depth - 1).items()}
    return paths


def kind(value: Any) -> str:
    """What a value is that is no text, for a message."""
    return "an object" if isinstance(value, Mapping) else "bytes" if isinstance(value, bytes) else "a list"


def shown(value: Any) -> str:
    """The beginning of a value, for a message."""
    return json.dumps(value, ensure_ascii=False, default=str)[:60]


def hint(name: str, value: Any) -> str:
    """How a task may use a column that is a list or an object, as the end of a message."""
    if are_turns(value):
        return f"; it is a dialogue: write dialogue: {name}, and leave prompt and completion out"
    inner = value[0] if isinstance(value, (list, tuple)) and value else value
    path = f"{name}.0" if isinstance(value, (list, tuple)) else name
    if isinstance(inner, Mapping):
        part = next((key for key, one in inner.items() if isinstance(one, str)), next(iter(inner), "text"))
        return f"; take a part of it, as in fields: {{{_plain(part)}: {path}.{part}}}"
    if isinstance(value, (list, tuple)):
        return f"; name it in 'references' if it holds right answers, or take one: fields: {{one: {path}}}"
    return ""


def _plain(name: object) -> str:
    return str(name) if str(name).isidentifier() else "part"
