"""Prompts and completions as token ids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
import transformers
from helpers import toy_tasks as toy
from hypothesis import given
from hypothesis import strategies as st

from harness import methods
from harness.networks.tuned import Tuned
from harness.objectives import classification, sft
from harness.tasks.data import TaskData
from harness.tasks.encode import encode, encode_examples
from harness.tasks.evaluate import rank_labels

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


# --- what a model reads does not tell what it is to answer -----------------------------------------------------------

NOISE = "Text: " + "noise and more noise, " * 9 + "\nType:"
#: Of 4, 7 and 18 tokens: bytes, the space before them and the end token.
LABELS = ("no", "maybe", "entirely certain")
TASK: dict[str, Any] = {"label": "l", "labels": dict(zip("abc", LABELS, strict=True)), "completion": "{label_word}"}


def labelled(prompts: Sequence[str], picks: Sequence[int]) -> TaskData:
    rows = zip(prompts, picks, strict=True)
    examples = [replace(toy.example(prompt, LABELS[pick]), label=pick) for prompt, pick in rows]
    return toy.data("classification", examples, metrics=["accuracy"], **TASK)


def read_in_training(tuned: Tuned, data: TaskData, monkeypatch: pytest.MonkeyPatch, **options: Any) -> list[list[int]]:
    """The prompts of the rows that training is given."""
    seen: list[dict[str, list[int]]] = []
    with monkeypatch.context() as patched:
        patched.setattr(sft, "train", lambda _tuned, rows, *_args, **_kwargs: seen.extend(rows))
        if options:
            sft.fit(tuned, data, toy.settings(), **options)
        else:
            classification.fit(tuned, data, toy.settings())
    return [
        [i for i, label in zip(row["input_ids"], row["labels"], strict=True) if label == sft.IGNORED] for row in seen
    ]


def read_in_ranking(tuned: Tuned, data: TaskData) -> list[list[int]]:
    """The prompts that the model is shown, one for each example and label."""
    lengths = [len(encode(tuned.base.tokenizer, "", label, 99).completion) for label in LABELS]
    found = []
    for example in data.test:
        shown: list[list[int]] = []

        def record(_module: Any, _args: Any, inputs: dict[str, torch.Tensor], shown: list[list[int]] = shown) -> None:
            pairs = zip(inputs["input_ids"], inputs["attention_mask"], strict=True)
            shown.extend(ids[mask.bool()].tolist() for ids, mask in pairs)

        hook = tuned.model.register_forward_pre_hook(record, with_kwargs=True)
        rank_labels(tuned, [example], data.label_words, 48)
        hook.remove()
        found += [row[: len(row) - size] for row, size in zip(shown, lengths, strict=True)]  # short labels come first
    return found


@pytest.mark.parametrize("gold", range(len(LABELS)))
def test_training_and_ranking_read_one_prompt_with_room_for_the_longest_label(
    gold: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    tuned, data = methods.apply("baseline", toy.base()), labelled([NOISE], [gold])
    prompts = [*read_in_training(tuned, data, monkeypatch), *read_in_ranking(tuned, data)]
    # The end token of ByT5's own makes a prompt one longer.
    expected = NOISE[: 48 - 18 - len("\nType:") - 1] + "\nType:" + TOKENIZER.eos_token
    assert [TOKENIZER.decode(prompt) for prompt in prompts] == [expected] * 4


def test_a_task_that_is_mixed_in_keeps_room_for_its_own_longest_label(monkeypatch: pytest.MonkeyPatch) -> None:
    other = labelled([NOISE] * 3, [0, 1, 2])
    monkeypatch.setattr(sft.tasks, "load", lambda *_: other)
    data = toy.data("generation", [toy.example("say a:", "a"), toy.example("say b:", "b")])
    read = read_in_training(methods.apply("baseline", toy.base()), data, monkeypatch, mix_with=["other"], staged=True)
    assert [len(prompt) for prompt in read] == [48 - 18, len("say a:") + 1]


@given(
    prompts=st.lists(st.text(st.sampled_from("abc \n"), min_size=20, max_size=80), min_size=1, max_size=4),
    picks=st.lists(st.integers(0, 2), min_size=4, max_size=4),
    max_length=st.integers(4, 60),
)
def test_prompts_do_not_change_when_the_labels_are_drawn_anew(
    prompts: list[str], picks: list[int], max_length: int
) -> None:
    drawn = labelled(prompts, picks[: len(prompts)]).train
    first = labelled(prompts, [0] * len(prompts)).train
    read = [[e.prompt for e in encode_examples(TOKENIZER, examples, max_length, LABELS)] for examples in (drawn, first)]
    assert read[0] == read[1]


@given(prompt=WORDS, max_length=st.integers(20, 60))
def test_every_label_is_whole_behind_a_prompt_cut_for_the_longest(prompt: str, max_length: int) -> None:
    for label in LABELS:
        encoded = encode(TOKENIZER, prompt, label, max_length, LABELS)
        assert TOKENIZER.decode(encoded.completion, skip_special_tokens=True).strip() == label
        assert len(encoded.prompt) <= max_length - len(encode(TOKENIZER, prompt, LABELS[-1], 99).completion)


def test_a_long_prompt_is_cut_by_a_tokenizer_that_cannot_give_its_text_back() -> None:
    """Without a decoder, text that is decoded from tokens has a space between any two, and is longer than before."""
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = Tokenizer(models.BPE(vocab={t: n for n, t in enumerate(["<pad>", "</s>", *letters])}, merges=[]))
    words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    special = {"eos_token": "</s>", "pad_token": "<pad>"}
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=words, **special)
    prompt = encode(tokenizer, "a" * 100 + "\nb:", "c", 20).prompt
    assert tokenizer.convert_ids_to_tokens(list(prompt)) == ["a"] * 14 + ["Ċ", "b", ":"]
