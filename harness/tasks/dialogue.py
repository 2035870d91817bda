"""Dialogues of several turns as token ids, with what is learnt: the assistant's turns alone."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from harness.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Turn = Mapping[str, str]


def parse_turns(text: str) -> list[Turn]:
    """Turns from JSON: a list of objects with ``role`` and ``content``, or with ``from`` and ``value`` (ShareGPT).

    Raises :class:`harness.errors.InputError` for anything else.
    """
    names = {"human": "user", "gpt": "assistant"}
    try:
        turns: list[Turn] = [
            {
                "role": names.get(role := turn.get("role") or turn["from"], role),
                "content": turn["content"] if "content" in turn else turn["value"],
            }
            for turn in json.loads(text)
        ]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(f"dialogue: a list of turns with 'role' and 'content' is needed, not {text[:60]!r}") from error
    if not any(turn["role"] == "assistant" for turn in turns):
        raise InputError("dialogue: no turn of the assistant, so there is nothing to learn")
    return turns


def encode_dialogue(
    tokenizer: PreTrainedTokenizerBase, turns: Sequence[Turn], max_length: int
) -> tuple[list[int], list[bool]]:
    """Token ids, and of each whether it is learnt: the assistant's words and the token that ends its turn.

    The text is that of the chat template, or ``role: content`` lines where there is none. It is tokenised in pieces at
    the turns' borders and cut at ``max_length`` tokens. Raises :class:`harness.errors.InputError` for a template that
    rewrites earlier turns when a later one is added: what was learnt and what is asked later would differ.
    """
    ids: list[int] = []
    learnt: list[bool] = []
    done = ""
    for position, turn in enumerate(turns):
        if turn["role"] != "assistant":
            continue
        opened = _rendered(tokenizer, turns[:position], opened=True)
        closed = _rendered(tokenizer, turns[: position + 1], opened=False)
        if not (opened.startswith(done) and closed.startswith(opened)):
            raise InputError("dialogue: the chat template rewrites earlier turns, so turns cannot be learnt one by one")
        # What follows the end of the turn, such as a line break, belongs to the next one.
        answer = closed[len(opened) :]
        end = tokenizer.eos_token or ""
        if end and end in answer:
            answer = answer[: answer.rindex(end) + len(end)]
        for text, learn in ((opened[len(done) :], False), (answer, True)):
            piece = tokenizer(text, add_special_tokens=False)["input_ids"]
            ids += piece
            learnt += [learn] * len(piece)
        done = opened + answer
    return ids[:max_length], learnt[:max_length]


def _rendered(tokenizer: PreTrainedTokenizerBase, turns: Sequence[Turn], opened: bool) -> str:
    if tokenizer.chat_template is not None:
        return str(tokenizer.apply_chat_template(list(turns), add_generation_prompt=opened, tokenize=False))
    end = tokenizer.eos_token or ""
    lines = [f"{t['role']}: {t['content']}{end if t['role'] == 'assistant' else ''}\n" for t in turns]
    return "".join(lines) + ("assistant: " if opened else "")
