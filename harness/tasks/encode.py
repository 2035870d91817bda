"""From examples to token ids, the same for training and for evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from harness.tasks.data import Example


@dataclass(frozen=True)
class Encoded:
    """Token ids of one prompt and of the completion that should follow it."""

    prompt: tuple[int, ...]
    completion: tuple[int, ...]


def prompt_text(tokenizer: PreTrainedTokenizerBase, prompt: str) -> str:
    """What the model reads: inside the chat template where the tokenizer has one, else as it is."""
    if tokenizer.chat_template is None:
        return prompt
    messages = [{"role": "user", "content": prompt}]
    return str(tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False))


def _prompt_ids(tokenizer: PreTrainedTokenizerBase, prompt: str) -> list[int]:
    # A chat template writes the special tokens itself.
    plain = tokenizer.chat_template is None
    return list(tokenizer(prompt_text(tokenizer, prompt), add_special_tokens=plain)["input_ids"])


def completion_ids(tokenizer: PreTrainedTokenizerBase, prompt: str, completion: str, end: bool = True) -> list[int]:
    """Token ids of ``completion``, with a leading space where it continues plain text, closed by the end token."""
    if tokenizer.chat_template is None and not prompt.endswith((" ", "\n")):
        completion = " " + completion
    ids = list(tokenizer(completion, add_special_tokens=False)["input_ids"])
    return [*ids, _end_id(tokenizer)] if end else ids


def _end_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """The end token; BERT has none and closes its texts with the separator."""
    return int(tokenizer.sep_token_id if tokenizer.eos_token_id is None else tokenizer.eos_token_id)


def encode(
    tokenizer: PreTrainedTokenizerBase, prompt: str, completion: str, max_length: int, answers: Sequence[str] = ()
) -> Encoded:
    """Prompt and completion in at most ``max_length`` tokens.

    ``answers`` are all that the task allows, such as the words of a classification's labels. Then the prompt is cut
    with room for the longest of them, whichever the completion is, so that how much of it is left does not tell the
    right one; else with room for the completion. The two are tokenised apart and joined as ids, so that generation,
    which sees the prompt alone, meets the very ids that training used.
    """
    completion_tokens = completion_ids(tokenizer, prompt, completion)
    possible = [completion_ids(tokenizer, prompt, answer) for answer in answers] or [completion_tokens]
    ids = _cut_prompt(tokenizer, prompt, max(max_length - max(map(len, possible)), 1))
    return Encoded(tuple(ids), tuple(completion_tokens[: max_length - len(ids)]))


def _cut_prompt(tokenizer: PreTrainedTokenizerBase, prompt: str, length: int) -> list[int]:
    """Token ids of ``prompt``, at most ``length`` of them.

    What is too much is cut off its end, the last line excepted: that is where a task asks for the answer.
    """
    text, break_, last_line = prompt.rpartition("\n")
    ids = _prompt_ids(tokenizer, prompt)
    while len(ids) > length and text:
        text = _without_last(tokenizer, text, len(ids) - length)
        ids = _prompt_ids(tokenizer, text + break_ + last_line)
    return ids[:length]


def _without_last(tokenizer: PreTrainedTokenizerBase, text: str, count: int) -> str:
    """The beginning of ``text`` without its last ``count`` tokens; always shorter than ``text``."""
    words = tokenizer(text, add_special_tokens=False, return_offsets_mapping=tokenizer.is_fast)
    left = max(len(words["input_ids"]) - count, 0)
    if tokenizer.is_fast:
        shorter = text[: words["offset_mapping"][left - 1][1]] if left else ""
    else:
        shorter = tokenizer.decode(words["input_ids"][:left])
    # Decoded tokens may be longer than what they were read from, such as where spaces come between them.
    return shorter if len(shorter) < len(text) else text[:-1]


def encode_examples(
    tokenizer: PreTrainedTokenizerBase, examples: Sequence[Example], max_length: int, answers: Sequence[str] = ()
) -> list[Encoded]:
    """:func:`encode` for a split; ``answers`` are all that the task allows, none where it leaves them open."""
    return [encode(tokenizer, e.prompt, e.completion, max_length, answers) for e in examples]
