"""Dialogues in the columns of a row become texts: what a model reads, and what it is to answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from harness.errors import InputError
from harness.tasks.read import SourceRow
from harness.tasks.templates import placeholders
from harness.tasks.turns import Turn, are_turns, as_prompt, turns_of, up_to_last_answer

if TYPE_CHECKING:
    from harness.tasks.spec import TaskSpec

#: The fields that the column named in ``dialogue`` gives.
GIVEN = ("history", "answer")


def spoken(spec: TaskSpec, row: SourceRow, where: str) -> SourceRow:
    """``row`` with a text in place of each list of turns that its task uses, and the fields of ``dialogue``.

    A list in the prompt gives its turns, a list behind it the words of its last turn. Raises
    :class:`harness.errors.InputError` with ``where`` for what is no dialogue, for a speaker that no chat template
    knows, for a prompt that holds the answer, and for two answers to different dialogues.
    """
    history: Sequence[Turn] | None = None
    if spec.dialogue is not None and row.values.get(spec.dialogue, "").strip():
        name = spec.dialogue
        turns = _turns(row.nested.get(name, row.values[name]), name, where)
        history, answer = up_to_last_answer(turns)
        row = replace(row, values={**row.values, "history": as_prompt(history), "answer": answer})
        if len(turns) > len(history) + 1:
            row = replace(row, remarks=("have turns behind the last answer, which are not read",))
    answers = {name for part in (spec.completion, spec.rejected) for name in placeholders(part or "")}
    for name in sorted((spec.used_fields | answers) & row.nested.keys() - set(GIVEN)):
        if name != spec.references and are_turns(row.nested[name]):
            turns = _turns(row.nested[name], name, where)
            text = _answer(spec, name, turns, history, where) if name in answers else _prompt(name, turns, where)
            rest = {other: value for other, value in row.nested.items() if other != name}
            row = replace(row, values={**row.values, name: text}, nested=rest)
    return row


def _turns(value: Any, name: str, where: str) -> list[Turn]:
    try:
        return turns_of(value)
    except InputError as error:
        raise InputError(f"{where}: column '{name}': {error}") from error


def _answer(spec: TaskSpec, name: str, turns: Sequence[Turn], history: Sequence[Turn] | None, where: str) -> str:
    """The last turn of a list behind the prompt."""
    read = {field for part in (spec.prompt, spec.text) for field in placeholders(part or "")}
    if name in read or turns[-1]["role"] != "assistant":
        raise InputError(
            f"{where}: column '{name}' is a dialogue, and no answer alone; write dialogue: {name}, and leave prompt "
            "and completion out"
        )
    before = turns[:-1]
    if history is not None and before and list(before) != list(history):
        raise InputError(f"{where}: '{name}' answers another dialogue than '{spec.dialogue}': their turns differ")
    return turns[-1]["content"]


def _prompt(name: str, turns: Sequence[Turn], where: str) -> str:
    if turns[-1]["role"] == "assistant":
        raise InputError(
            f"{where}: column '{name}' ends with an answer, so a prompt of it would give the answer away; write "
            f"dialogue: {name}, and leave prompt and completion out"
        )
    return as_prompt(turns)
