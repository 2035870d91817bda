"""Dialogues of several turns as token ids; only the assistant's turns are learnt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from harness.errors import InputError
from harness.tasks.encode import continued_ids, cut_text, end_id, free_answer_tokens, start_ids, text_ids
from harness.tasks.turns import Turn

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def encode_dialogue(
    tokenizer: PreTrainedTokenizerBase, turns: Sequence[Turn], max_length: int, max_new_tokens: int
) -> tuple[list[int], list[bool]]:
    """Token ids, and for each whether it is learnt: the assistant's words and the end of each of its turns.

    The text comes from the chat template, or has ``role: content`` lines if there is none, up to the last answer. It is
    cut at its front, so that the last answer keeps ``max_new_tokens``: the oldest exchanges go first (a system message
    stays), then words of the last question.

    Raises :class:`harness.errors.InputError` for a template that rewrites earlier turns when a later one is added,
    because training and evaluation would then see different texts.
    """
    return dialogue_within(tokenizer, turns, max_length, max_new_tokens)[:2]


def dialogue_within(
    tokenizer: PreTrainedTokenizerBase, turns: Sequence[Turn], max_length: int, max_new_tokens: int
) -> tuple[list[int], list[bool], bool]:
    """The same, and whether anything was cut."""
    room = max_length - free_answer_tokens(max_new_tokens, max_length)
    shown = _cut_at_front(tokenizer, turns, room)
    ids, learnt = _joined(tokenizer, shown)
    cut = shown != list(turns[: _last_answer(turns) + 1]) or len(ids) > max_length
    return ids[:max_length], learnt[:max_length], cut


def _last_answer(turns: Sequence[Turn]) -> int:
    return max(place for place, turn in enumerate(turns) if turn["role"] == "assistant")


def _joined(tokenizer: PreTrainedTokenizerBase, turns: Sequence[Turn]) -> tuple[list[int], list[bool]]:
    """Token ids of the turns up to the last answer, and for each whether it is learnt."""
    ids = [] if tokenizer.chat_template is not None else start_ids(tokenizer)
    learnt = [False] * len(ids)
    done = ""
    for text, is_answer in _pieces(tokenizer, turns):
        piece = continued_ids(tokenizer, done, text)
        if is_answer and (not piece or piece[-1] != end_id(tokenizer)):
            piece = [*piece, end_id(tokenizer)]
        ids += piece
        learnt += [is_answer] * len(piece)
        done += text
    return ids, learnt


def _pieces(tokenizer: PreTrainedTokenizerBase, turns: Sequence[Turn]) -> list[tuple[str, bool]]:
    """The rendered text in pieces: what is read, and each answer with its end token."""
    pieces: list[tuple[str, bool]] = []
    done = ""
    for position, turn in enumerate(turns):
        if turn["role"] != "assistant":
            continue
        opened = _rendered(tokenizer, turns[:position], opened=True)
        closed = _rendered(tokenizer, turns[: position + 1], opened=False)
        if not (opened.startswith(done) and closed.startswith(opened)):
            raise InputError("dialogue: the chat template rewrites earlier turns, so single turns cannot be learnt")
        # What follows the end of the turn, such as a line break, belongs to the next one.
        answer, end = closed[len(opened) :], _end(tokenizer)
        if end in answer:
            answer = answer[: answer.rindex(end) + len(end)]
        pieces += [(opened[len(done) :], False), (answer, True)]
        done = opened + answer
    return pieces


def _cut_at_front(tokenizer: PreTrainedTokenizerBase, turns: Sequence[Turn], room: int) -> list[Turn]:
    """The system message and the latest turns up to the last answer; the part before it fits into ``room`` tokens."""
    last = _last_answer(turns)
    system = [turn for turn in turns[:1] if turn["role"] == "system"]
    exchanges = [place for place in range(len(system), last) if turns[place]["role"] == "user"]
    for first in [len(system), *exchanges]:
        before = [*system, *turns[first:last]]
        if len(_opened_ids(tokenizer, before)) <= room:
            return [*before, turns[last]]
    if not exchanges:
        return [*system, *turns[len(system) : last + 1]]
    question, between = turns[exchanges[-1]], turns[exchanges[-1] + 1 : last]

    def opened_ids(words: str) -> list[int]:
        return _opened_ids(tokenizer, [*system, {**question, "content": words}, *between])

    words = cut_text(tokenizer, question["content"], room, opened_ids)
    return [*system, {**question, "content": words}, *between, turns[last]]


def _opened_ids(tokenizer: PreTrainedTokenizerBase, turns: Sequence[Turn]) -> list[int]:
    return text_ids(tokenizer, _rendered(tokenizer, turns, opened=True))


def _end(tokenizer: PreTrainedTokenizerBase) -> str:
    return str(tokenizer.convert_ids_to_tokens(end_id(tokenizer)))


def _rendered(tokenizer: PreTrainedTokenizerBase, turns: Sequence[Turn], opened: bool) -> str:
    if tokenizer.chat_template is not None:
        return str(tokenizer.apply_chat_template(list(turns), add_generation_prompt=opened, tokenize=False))
    lines = [f"{t['role']}: {t['content']}{_end(tokenizer) if t['role'] == 'assistant' else ''}\n" for t in turns]
    return "".join(lines) + ("assistant: " if opened else "")
