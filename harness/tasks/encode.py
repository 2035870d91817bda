"""From texts to token ids, the same for training, ranking, generation, dialogues and corpora.

The ids of a prompt and of the answer behind it are those of the joined text: the special tokens that the tokenizer puts
before a text stand once, in front; a space of its own before every text does not stand in the middle; an end token that
it puts behind every text closes the answer alone. What a prompt becomes never depends on the answer.

An encoder-decoder reads the two ``apart``: each is then a text of its own, with what the tokenizer puts around one.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from harness.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from harness.tasks.data import Example

#: Stands for an answer when a chat template is asked what it writes around one.
_MARK = "ANSWER"
#: Characters of the text before an answer that may change the answer's first token.
_SEAM = 16


@dataclass(frozen=True)
class Encoded:
    """Token ids of one prompt and its completion."""

    prompt: tuple[int, ...]
    completion: tuple[int, ...]
    cut: bool = field(default=False, compare=False)
    """Whether either is shorter than its text."""

    def __len__(self) -> int:
        return len(self.prompt) + len(self.completion)


# --- what a tokenizer and its chat template put around texts ---------------------------------------------------------


def text_ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Token ids of ``text`` alone, without special tokens around it."""
    return list(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])


def start_ids(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The special tokens that the tokenizer puts before a text, such as Gemma's ``<bos>``; often none."""
    bare, whole = text_ids(tokenizer, "a"), list(tokenizer("a")["input_ids"])
    return whole[: _place(bare, whole)]


def closing_ids(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The special tokens that the tokenizer puts behind a text, such as T5's ``</s>``; often none."""
    bare, whole = text_ids(tokenizer, "a"), list(tokenizer("a")["input_ids"])
    return whole[_place(bare, whole) + len(bare) :]


def _place(bare: list[int], whole: list[int]) -> int:
    """Where ``bare`` begins in ``whole``; 0 if it is not there."""
    return next((i for i in range(len(whole)) if whole[i : i + len(bare)] == bare), 0)


def end_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """The token that closes an answer: the end of turn of the chat template, else the tokenizer's end token.

    BERT has no end token and closes its texts with the separator.
    """
    return _end_id(tokenizer, tokenizer.chat_template)


@functools.lru_cache(maxsize=8)
def _end_id(tokenizer: PreTrainedTokenizerBase, template: str | None) -> int:
    if template is not None:
        _, behind = _around_answer(tokenizer, template)
        special = set(tokenizer.all_special_ids) | {i for i, t in tokenizer.added_tokens_decoder.items() if t.special}
        for token in text_ids(tokenizer, behind):
            if token in special:
                return token
    return int(tokenizer.sep_token_id if tokenizer.eos_token_id is None else tokenizer.eos_token_id)


@functools.lru_cache(maxsize=8)
def _around_answer(tokenizer: PreTrainedTokenizerBase, template: str) -> tuple[str, str]:
    """What the chat template writes between the assistant's header and its words, white space only, and behind them."""
    asked = {"role": "user", "content": "?"}
    opened = _rendered(tokenizer, [asked], opened=True)
    closed = _rendered(tokenizer, [asked, {"role": "assistant", "content": _MARK}], opened=False)
    before, _, behind = closed.rpartition(_MARK)
    between = before.removeprefix(opened) if before.startswith(opened) else ""
    # An empty chain of thought is nothing that an answer starts with.
    return (between if between.isspace() else ""), behind


def _rendered(tokenizer: PreTrainedTokenizerBase, turns: Sequence[dict[str, str]], opened: bool) -> str:
    return str(tokenizer.apply_chat_template(list(turns), add_generation_prompt=opened, tokenize=False))


# --- prompts and completions -----------------------------------------------------------------------------------------


def prompt_text(tokenizer: PreTrainedTokenizerBase, prompt: str) -> str:
    """The text that the model reads: inside the chat template if the tokenizer has one, else as it is.

    Spaces at the end of plain text belong to the first token of the answer.
    """
    if tokenizer.chat_template is None:
        return prompt.rstrip(" ")
    return _rendered(tokenizer, [{"role": "user", "content": prompt}], opened=True)


def prompt_ids(tokenizer: PreTrainedTokenizerBase, prompt: str, apart: bool = False) -> list[int]:
    """Token ids of :func:`prompt_text`; a chat template writes the special tokens itself."""
    text = text_ids(tokenizer, prompt_text(tokenizer, prompt))
    if tokenizer.chat_template is not None:
        return text
    return [*start_ids(tokenizer), *text, *(closing_ids(tokenizer) if apart else ())]


def completion_ids(tokenizer: PreTrainedTokenizerBase, prompt: str, completion: str, apart: bool = False) -> list[int]:
    """Token ids of ``completion`` behind ``prompt``, closed by :func:`end_id`.

    If it continues plain text, a space stands between the two, unless the prompt ends with a line break.
    """
    if apart:
        return [*start_ids(tokenizer), *text_ids(tokenizer, completion), end_id(tokenizer)]
    if tokenizer.chat_template is not None:
        completion = _around_answer(tokenizer, tokenizer.chat_template)[0] + completion
    elif not prompt.endswith("\n"):
        completion = " " + completion
    return [*continued_ids(tokenizer, prompt_text(tokenizer, prompt), completion), end_id(tokenizer)]


def continued_ids(tokenizer: PreTrainedTokenizerBase, before: str, text: str) -> list[int]:
    """Token ids of ``text`` in its place behind ``before``; no token spans the two."""
    if not before:
        return text_ids(tokenizer, text)
    # A line break in place of a seam that would become one token: it keeps off a space of the tokenizer's own.
    for seam in (before[-_SEAM:], "\n"):
        left, joined = text_ids(tokenizer, seam), text_ids(tokenizer, seam + text)
        if joined[: len(left)] == left:
            return joined[len(left) :]
    return text_ids(tokenizer, text)


def encode(
    tokenizer: PreTrainedTokenizerBase,
    prompt: str,
    completion: str,
    max_length: int,
    answer_tokens: int,
    apart: bool = False,
) -> Encoded:
    """Prompt and completion in at most ``max_length`` tokens.

    The prompt leaves room for ``answer_tokens``, whatever the completion is, so that its remaining length does not give
    away the right answer. The completion gets the tokens that the prompt leaves. Raises
    :class:`harness.errors.InputError` if the chat template alone fills the prompt's room.
    """
    answer = completion_ids(tokenizer, prompt, completion, apart)
    ids, cut = prompt_within(tokenizer, prompt, max_length, answer_tokens, apart)
    room = max_length - len(ids)
    return Encoded(tuple(ids), tuple(answer[:room]), cut=cut or len(answer) > room)


def cut_prompt(
    tokenizer: PreTrainedTokenizerBase, prompt: str, max_length: int, answer_tokens: int, apart: bool = False
) -> list[int]:
    """Token ids of ``prompt``, cut as :func:`encode` says."""
    return prompt_within(tokenizer, prompt, max_length, answer_tokens, apart)[0]


def prompt_within(
    tokenizer: PreTrainedTokenizerBase, prompt: str, max_length: int, answer_tokens: int, apart: bool = False
) -> tuple[list[int], bool]:
    """The same, and whether the prompt is shorter than its text."""

    def ids_of(words: str) -> list[int]:
        return prompt_ids(tokenizer, words, apart)

    ids, room = ids_of(prompt), max(max_length - answer_tokens, 1)
    return (ids, False) if len(ids) <= room else (ids_of(cut_text(tokenizer, prompt, room, ids_of)), True)


def cut_text(tokenizer: PreTrainedTokenizerBase, text: str, room: int, ids_of: Callable[[str], Sequence[int]]) -> str:
    """``text`` without as many words as it takes for ``ids_of(text)``, with all around it, to fit into ``room``.

    Only the user's text is cut, never the chat template. The cut starts at the end of the text before the last line,
    because that line asks for the answer. A text of one line loses its middle and keeps its last quarter. Raises
    :class:`harness.errors.InputError` if the text around it fills ``room`` alone.
    """
    if len(ids_of(text)) <= room:
        return text
    if (frame := len(ids_of(""))) >= room:
        raise InputError(
            f"budget.max_length: {room} tokens are left for a prompt, and {frame} of them are what the chat template "
            "or the tokenizer puts around it; give more"
        )
    head, break_, last_line = text.rpartition("\n")
    if len(ids_of(break_ + last_line)) > room:
        break_, last_line = "", _last(tokenizer, last_line, max((room - frame) // 4, 1))
        head = text.rpartition("\n")[2].removesuffix(last_line)
    while head and (excess := len(ids_of(head + break_ + last_line)) - room) > 0:
        head = _without_last(tokenizer, head, excess)
    while last_line and len(ids_of(head + break_ + last_line)) > room:
        break_, last_line = "", last_line[1:]
    return head + break_ + last_line


def _without_last(tokenizer: PreTrainedTokenizerBase, text: str, count: int) -> str:
    """The beginning of ``text`` without its last ``count`` tokens; always shorter than ``text``."""
    words = tokenizer(text, add_special_tokens=False, return_offsets_mapping=tokenizer.is_fast, verbose=False)
    left = max(len(words["input_ids"]) - count, 0)
    if tokenizer.is_fast:
        shorter = text[: words["offset_mapping"][left - 1][1]] if left else ""
    else:
        shorter = tokenizer.decode(words["input_ids"][:left])
    # Decoded tokens may be longer than what they were read from, such as where spaces come between them.
    return shorter if text.startswith(shorter) and len(shorter) < len(text) else text[:-1]


def _last(tokenizer: PreTrainedTokenizerBase, text: str, count: int) -> str:
    """The last ``count`` tokens of ``text``; characters, if the tokenizer does not say where tokens start."""
    if not tokenizer.is_fast:
        return text[-count:]
    starts = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)["offset_mapping"]
    return text[starts[-count][0] :] if len(starts) >= count else text


# --- examples of a task ----------------------------------------------------------------------------------------------


def free_answer_tokens(max_new_tokens: int, max_length: int) -> int:
    """Tokens that a prompt leaves free for an answer of at most ``max_new_tokens``: at most half of all."""
    return min(max_new_tokens, max_length // 2)


def answer_tokens(
    tokenizer: PreTrainedTokenizerBase, example: Example, max_length: int, max_new_tokens: int, apart: bool = False
) -> int:
    """Tokens that the prompt of ``example`` leaves free, for the longest label or a free answer."""
    labelled = [len(completion_ids(tokenizer, example.prompt, one, apart)) for one in example.candidates]
    return max(labelled, default=free_answer_tokens(max_new_tokens, max_length))


def encode_examples(
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[Example],
    max_length: int,
    max_new_tokens: int,
    apart: bool = False,
) -> list[Encoded]:
    """:func:`encode` for a split of a task with answers of up to ``max_new_tokens``."""
    rooms = (answer_tokens(tokenizer, e, max_length, max_new_tokens, apart) for e in examples)
    return [
        encode(tokenizer, e.prompt, e.completion, max_length, room, apart)
        for e, room in zip(examples, rooms, strict=True)
    ]
