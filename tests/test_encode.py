"""Prompts and completions as token ids."""

from __future__ import annotations

import pytest
import transformers
from hypothesis import given
from hypothesis import strategies as st

from harness.tasks.encode import encode

TOKENIZER = transformers.ByT5Tokenizer(extra_ids=0)  # bytes: no vocabulary to fetch
WORDS = st.text(st.sampled_from("abc \n"), max_size=80)


@given(prompt=WORDS, completion=WORDS, max_length=st.integers(4, 60))
def test_never_longer_than_allowed_and_always_with_a_completion(prompt: str, completion: str, max_length: int) -> None:
    encoded = encode(TOKENIZER, prompt, completion, max_length)
    assert len(encoded.prompt) + len(encoded.completion) <= max_length
    assert encoded.completion


@pytest.mark.parametrize("max_length", [40, 60])
def test_a_long_prompt_loses_its_middle_and_keeps_the_line_that_asks(max_length: int) -> None:
    encoded = encode(TOKENIZER, "Shorten: " + "x" * 200 + "\nSummary:", "short", max_length)
    text = TOKENIZER.decode(encoded.prompt, skip_special_tokens=True)
    assert text.startswith("Shorten: xx") and text.endswith("x\nSummary:")
    assert TOKENIZER.decode(encoded.completion, skip_special_tokens=True) == " short"


def test_a_completion_ends_with_the_end_token_and_starts_with_a_space_after_plain_text() -> None:
    encoded = encode(TOKENIZER, "Q:", "yes", 40)
    assert encoded.completion[-1] == TOKENIZER.eos_token_id
    assert TOKENIZER.decode(encoded.completion, skip_special_tokens=True) == " yes"


def test_without_an_end_token_a_completion_ends_with_the_separator() -> None:
    like_bert = transformers.ByT5Tokenizer(extra_ids=0)
    like_bert.sep_token, like_bert.eos_token = like_bert.unk_token, None
    assert encode(like_bert, "Q:", "yes", 40).completion[-1] == like_bert.sep_token_id


def test_the_prompt_does_not_depend_on_the_completion_when_there_is_room() -> None:
    assert encode(TOKENIZER, "Q: a\nA:", "b", 60).prompt == encode(TOKENIZER, "Q: a\nA:", "", 60).prompt
