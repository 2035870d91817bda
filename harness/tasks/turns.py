"""Dialogues as data: lists of turns in the two usual forms, and the texts that a task makes of them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from harness.errors import InputError, unknown

Turn = Mapping[str, str]

#: Names of the speakers in the usual formats, and the chat templates' own.
_ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "prompter": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "model": "assistant",
    "bot": "assistant",
}


def are_turns(value: Any) -> bool:
    """Whether ``value`` looks like a dialogue: a list of objects that each name a speaker and hold what it says."""
    return (
        isinstance(value, (list, tuple))
        and len(value) > 0
        and all(
            isinstance(turn, Mapping) and ("role" in turn or "from" in turn) and ("content" in turn or "value" in turn)
            for turn in value
        )
    )


def parse_turns(text: str) -> list[Turn]:
    """Turns from JSON: a list of objects with ``role`` and ``content``, or with ``from`` and ``value`` (ShareGPT).

    Raises :class:`harness.errors.InputError` for anything else, for a dialogue without an answer, and for a speaker
    unknown to every chat template: no turn is left out in silence.
    """
    try:
        value = json.loads(text)
    except (ValueError, TypeError) as error:
        raise _not_turns(text) from error
    turns = turns_of(value)
    if not any(turn["role"] == "assistant" for turn in turns):
        raise InputError("dialogue: it has no turn of the assistant, so there is nothing to learn")
    return turns


def turns_of(value: Any) -> list[Turn]:
    """The turns in a list of objects; raises :class:`harness.errors.InputError` as :func:`parse_turns` does."""
    if not isinstance(value, (list, tuple)):
        raise _not_turns(value)
    return [_turn(turn) for turn in value]


def _not_turns(value: Any) -> InputError:
    shown = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return InputError(f"dialogue: a list of turns with 'role' and 'content' is needed, not {shown[:60]!r}")


def _turn(turn: Any) -> Turn:
    if not isinstance(turn, Mapping):
        raise _not_turns(turn)
    # Typed tables give every turn every key.
    if turn.get("tool_calls") or turn.get("function_call"):
        raise InputError("dialogue: a turn calls a tool, which no chat template here shows; leave such dialogues out")
    if turn.get("weight") not in (None, 1):
        raise InputError(f"dialogue: a turn has the weight {turn['weight']}, and every answer is learnt; leave it out")
    role = turn.get("role") or turn.get("from")
    content = _text(turn.get("value") if turn.get("content") is None else turn["content"])
    if role is None or content is None:
        raise _not_turns(turn)
    if str(role).lower() not in _ROLES:
        raise unknown("dialogue: role", str(role), _ROLES)
    return {"role": _ROLES[str(role).lower()], "content": content}


def _text(content: Any) -> str | None:
    """What a turn says; the parts of a list of ``{"type": "text", "text": …}`` joined. None if it is no text."""
    if isinstance(content, list):
        parts = [part.get("text") for part in content if isinstance(part, Mapping) and part.get("type") == "text"]
        texts = [text for text in parts if isinstance(text, str)]
        return "".join(texts) if len(texts) == len(content) else None
    return content if isinstance(content, str) else None


def up_to_last_answer(turns: Sequence[Turn]) -> tuple[Sequence[Turn], str]:
    """The turns before the assistant's last one, and what that one says; all turns and '' if there is none."""
    last = max((place for place, turn in enumerate(turns) if turn["role"] == "assistant"), default=None)
    return (turns, "") if last is None else (turns[:last], turns[last]["content"])


def as_prompt(turns: Sequence[Turn]) -> str:
    """Turns as one text: the words of a single question alone, else a line ``role: words`` for each turn."""
    if len(turns) == 1 and turns[0]["role"] == "user":
        return turns[0]["content"]
    return "\n".join(f"{turn['role']}: {turn['content']}" for turn in turns)
