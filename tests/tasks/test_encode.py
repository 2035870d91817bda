"""Prompts and completions as token ids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
import transformers
from helpers import toy_tasks as toy
from helpers.lengths import long_after
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from harness import methods
from harness.errors import InputError
from harness.models.load import load
from harness.networks.tuned import Tuned
from harness.objectives import classification, sft
from harness.tasks.data import TaskData
from harness.tasks.encode import (
    Encoded,
    completion_ids,
    cut_prompt,
    encode,
    encode_examples,
    end_id,
    free_answer_tokens,
)
from harness.tasks.likelihood import blocks
from harness.tasks.logprobs import completion_batch
from harness.tasks.pairs import encode_pair
from harness.tasks.ranking import rank_labels
from harness.training.rollouts import sample

TOKENIZER = transformers.ByT5Tokenizer(extra_ids=0)  # bytes: no vocabulary to fetch
WORDS = st.text(st.sampled_from("abc \n"), max_size=80)


@given(prompt=WORDS, completion=WORDS, max_length=st.integers(4, 60), free=st.integers(1, 60))
def test_never_longer_than_allowed_and_with_the_beginning_of_the_completion(
    prompt: str, completion: str, max_length: int, free: int
) -> None:
    encoded = encode(TOKENIZER, prompt, completion, max_length, free)
    assert len(encoded.prompt) <= max(max_length - free, 1)
    whole = completion_ids(TOKENIZER, prompt, completion)
    assert list(encoded.completion) == whole[: max_length - len(encoded.prompt)] != []


@pytest.mark.parametrize("max_length", [40, 60])
def test_a_long_prompt_loses_its_middle_and_keeps_the_line_that_asks(max_length: int) -> None:
    encoded = encode(TOKENIZER, "Shorten: " + "x" * 200 + "\nSummary:", "short", max_length, 7)
    text = TOKENIZER.decode(encoded.prompt)
    assert text == "Shorten: " + "x" * (max_length - 7 - 18) + "\nSummary:"
    assert TOKENIZER.decode(encoded.completion) == " short</s>"


def test_a_long_prompt_of_one_line_keeps_its_beginning_and_its_last_quarter() -> None:
    encoded = encode(TOKENIZER, "Text: " + "x" * 90 + " Label:", "a", 43, 3)
    assert TOKENIZER.decode(encoded.prompt) == "Text: " + "x" * 27 + " Label:"[-7:]
    assert len(encoded.prompt) == 40


def test_what_precedes_the_last_line_goes_first_and_then_its_own_middle() -> None:
    ids = cut_prompt(TOKENIZER, "story\n" + "a" * 30 + "b" * 30, 24, 4)
    assert TOKENIZER.decode(ids) == "a" * 15 + "b" * 5


def test_a_completion_ends_with_the_end_token_and_starts_with_a_space_after_plain_text() -> None:
    assert TOKENIZER.decode(completion_ids(TOKENIZER, "Q:", "yes")) == " yes</s>"
    assert TOKENIZER.decode(completion_ids(TOKENIZER, "Q:\n", "yes")) == "yes</s>"


def test_a_free_answer_gets_no_more_than_half() -> None:
    assert [free_answer_tokens(new, 60) for new in (4, 30, 31, 500)] == [4, 30, 30, 30]


def test_a_space_at_the_end_of_a_prompt_belongs_to_the_answer() -> None:
    assert encode(TOKENIZER, "Q: ", "yes", 40, 8) == encode(TOKENIZER, "Q:", "yes", 40, 8)


def test_an_end_token_that_the_tokenizer_adds_by_itself_does_not_close_the_prompt() -> None:
    assert TOKENIZER("Q:")["input_ids"][-1] == TOKENIZER.eos_token_id
    assert TOKENIZER.decode(encode(TOKENIZER, "Q:", "yes", 40, 8).prompt) == "Q:"


def test_without_an_end_token_a_completion_ends_with_the_separator() -> None:
    like_bert = transformers.ByT5Tokenizer(extra_ids=0)
    like_bert.sep_token, like_bert.eos_token = like_bert.unk_token, None
    assert completion_ids(like_bert, "Q:", "yes")[-1] == like_bert.sep_token_id


# --- the ids are those of the joined text ----------------------------------------------------------------------------


def sentencepiece_like() -> Any:
    """A tokenizer as Llama 2 has it: ``<s>`` before every text, and a space of its own there."""
    pieces = [*"▁abcdefghijklmnopqrstuvwxyz:.?", *(f"▁{letter}" for letter in "abcdefghijklmnopqrstuvwxyz")]
    special = ["<unk>", "<s>", "</s>"]
    merges = [("▁", letter) for letter in "abcdefghijklmnopqrstuvwxyz"]
    vocabulary = {piece: place for place, piece in enumerate([*special, *dict.fromkeys(pieces)])}
    model = Tokenizer(models.BPE(vocabulary, merges))
    model.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    model.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    start = [("<s>", vocabulary["<s>"])]
    model.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=start)
    names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "</s>"}
    return transformers.PreTrainedTokenizerFast(tokenizer_object=model, **names)


REAL = [pytest.param(name, marks=pytest.mark.slow) for name in ("smollm2-135m", "gemma3-270m")]


@pytest.mark.parametrize("name", ["sentencepiece", *REAL])
@pytest.mark.parametrize("prompt", long_after(1, ["what is it?", "a question: ", "one\ntwo:"]))
def test_prompt_and_answer_together_are_the_joined_text(name: str, prompt: str) -> None:
    """Without a chat template; the answer has no second start, no space of the tokenizer's own, one end."""
    tokenizer = sentencepiece_like() if name == "sentencepiece" else load(name).tokenizer
    tokenizer.chat_template = None
    for answer in ("yes", "it is a cat."):
        encoded = encode(tokenizer, prompt, answer, 60, 20)
        joined = tokenizer(prompt.rstrip(" ") + " " + answer)["input_ids"]
        assert [*encoded.prompt, *encoded.completion] == [*joined, tokenizer.eos_token_id]


@pytest.mark.slow
def test_gemmas_texts_start_with_its_start_token() -> None:
    tokenizer = load("gemma3-270m").tokenizer
    assert tokenizer.decode(encode(tokenizer, "a", "b", 20, 5).prompt) == "<bos>a"
    assert [tokenizer.decode(block) for block in blocks(tokenizer, ["a b c d e", "f"], 4, apart=True)] == [
        "<bos>a b c",
        "<bos> d e<eos>",
        "<bos>f<eos>",
    ]
    # Joined, a block starts with it too, and the last one that is not full is left out.
    assert [tokenizer.decode(block) for block in blocks(tokenizer, ["a b c", "d"], 4)] == [
        "<bos>a b c",
        "<bos><eos><bos>d",
    ]
    assert [tokenizer.decode(block) for block in blocks(tokenizer, ["a b", "d"], 4)] == ["<bos>a b<eos>"]


CHAT = "{% for m in messages %}<s>{{ m.role }}\n{{ m.content }}<turn>\n{% endfor %}"
ASK = "{% if add_generation_prompt %}<s>assistant\n{% endif %}"


def chat_tokenizer(template: str = CHAT + ASK) -> Any:
    """Bytes with the markup of a chat whose turns do not end with the end token of texts."""
    tokenizer = transformers.ByT5Tokenizer(extra_ids=0)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<turn>"]})
    tokenizer.chat_template = template
    return tokenizer


def test_an_answer_in_a_chat_ends_with_the_turn() -> None:
    tokenizer = chat_tokenizer()
    assert tokenizer.decode(completion_ids(tokenizer, "hi", "hello")) == "hello<turn>"
    assert end_id(tokenizer) == tokenizer.convert_tokens_to_ids("<turn>") != tokenizer.eos_token_id


@pytest.mark.parametrize(
    ("template", "answer"),
    [
        ("{% for m in messages %}{{ m.role }}:{{ m.content }}\n{% endfor %}", "yes</s>"),  # no token ends a turn
        (CHAT.replace("{{ m.content }}", "{{ ' ' + m.content }}") + ASK, " yes<turn>"),  # Llama 2
        (  # Qwen 3: the empty chain of thought is not learnt
            CHAT.replace("{{ m.content }}", "{% if m.role == 'assistant' %}<think>\n</think>{% endif %}{{ m.content }}")
            + ASK,
            "yes<turn>",
        ),
    ],
)
def test_an_answer_in_a_chat_is_what_the_template_makes_of_it(template: str, answer: str) -> None:
    tokenizer = chat_tokenizer(template)
    assert tokenizer.decode(completion_ids(tokenizer, "hi", "yes")) == answer


@given(prompt=st.text(st.sampled_from("ab \n"), max_size=80), room=st.integers(25, 60))
def test_a_chat_template_is_never_cut(prompt: str, room: int) -> None:
    text = chat_tokenizer().decode(cut_prompt(chat_tokenizer(), prompt, room + 4, 4))
    assert text.startswith("<s>user\n") and text.endswith("<turn>\n<s>assistant\n")


def test_a_budget_that_holds_no_more_than_the_template_is_refused() -> None:
    with pytest.raises(InputError, match=r"budget.max_length: 20 tokens are left for a prompt, and 2\d of them"):
        cut_prompt(chat_tokenizer(), "a question of some length", 24, 4)


# --- what a model reads does not tell what it is to answer -----------------------------------------------------------

NOISE = "Text: " + "noise and more noise, " * 9 + "\nType:"
#: Of 4, 7 and 18 tokens: bytes, the space before them and the end token.
LABELS = ("no", "maybe", "entirely certain")
TASK: dict[str, Any] = {"label": "l", "labels": dict(zip("abc", LABELS, strict=True)), "completion": "{label_word}"}


def labelled(prompts: Sequence[str], picks: Sequence[int]) -> TaskData:
    rows = zip(prompts, picks, strict=True)
    examples = [replace(toy.example(prompt, LABELS[pick]), label=pick, candidates=LABELS) for prompt, pick in rows]
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
    """The prompts that the model is shown, one for each example."""
    found = []
    for example in data.test:
        shown: list[list[int]] = []

        def record(_module: Any, _args: Any, inputs: dict[str, torch.Tensor], shown: list[list[int]] = shown) -> None:
            width = inputs["input_ids"].shape[1]
            pairs = zip(inputs["input_ids"], inputs["attention_mask"][:, -width:].bool(), strict=True)
            shown.extend(ids[mask].tolist() for ids, mask in pairs)

        hook = tuned.model.register_forward_pre_hook(record, with_kwargs=True)
        rank_labels(tuned, [example], 48)
        hook.remove()
        found.append(shown[0])  # behind it come the labels
    return found


@pytest.mark.parametrize("gold", range(len(LABELS)))
def test_training_and_ranking_read_one_prompt_with_room_for_the_longest_label(
    gold: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    tuned, data = methods.apply("baseline", toy.base()), labelled([NOISE], [gold])
    prompts = [*read_in_training(tuned, data, monkeypatch), *read_in_ranking(tuned, data)]
    expected = NOISE[: 48 - 18 - len("\nType:")] + "\nType:"
    assert [TOKENIZER.decode(prompt) for prompt in prompts] == [expected] * 2


def test_a_task_that_is_mixed_in_keeps_room_for_its_own_longest_label(monkeypatch: pytest.MonkeyPatch) -> None:
    other = labelled([NOISE] * 3, [0, 1, 2])
    monkeypatch.setattr(sft.tasks, "load", lambda *_: other)
    data = toy.data("generation", [toy.example("say a:", "a"), toy.example("say b:", "b")])
    read = read_in_training(methods.apply("baseline", toy.base()), data, monkeypatch, mix_with=["other"], staged=True)
    assert [len(prompt) for prompt in read] == [48 - 18, len("say a:")]


@pytest.mark.slow
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
    read = [[e.prompt for e in encode_examples(TOKENIZER, examples, max_length, 9)] for examples in (drawn, first)]
    assert read[0] == read[1]


@given(prompt=WORDS, max_length=st.integers(20, 60))
def test_every_label_is_whole_behind_a_prompt_cut_for_the_longest(prompt: str, max_length: int) -> None:
    for label in LABELS:
        (encoded,) = encode_examples(TOKENIZER, [replace(toy.example(prompt, label), candidates=LABELS)], max_length, 9)
        assert TOKENIZER.decode(encoded.completion, skip_special_tokens=True).strip() == label
        assert len(encoded.prompt) <= max_length - len(completion_ids(TOKENIZER, prompt, LABELS[-1]))


def test_a_long_prompt_is_cut_by_a_tokenizer_that_cannot_give_its_text_back() -> None:
    """Without a decoder, text that is decoded from tokens has a space between any two, and is longer than before."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = Tokenizer(models.BPE(vocab={t: n for n, t in enumerate(["<pad>", "</s>", *letters])}, merges=[]))
    words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    special = {"eos_token": "</s>", "pad_token": "<pad>"}
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=words, **special)
    prompt = cut_prompt(tokenizer, "a" * 100 + "\nb:", 20, 3)
    assert tokenizer.convert_ids_to_tokens(prompt) == ["a"] * 14 + ["Ċ", "b", ":"]


@pytest.mark.slow
@settings(max_examples=10)
@given(lengths=st.lists(st.integers(1, 40), min_size=2, max_size=2), free=st.integers(4, 30))
def test_neither_training_nor_generation_sees_the_length_of_an_open_answer(lengths: list[int], free: int) -> None:
    first, other = (toy.example(NOISE, "y" * length, "n" * (41 - length)) for length in lengths)
    prompts = {encode_examples(TOKENIZER, [e], 60, free)[0].prompt for e in (first, other)}
    prompts |= {encode_pair(TOKENIZER, e, 60, free).rejected.prompt for e in (first, other)}
    tuned = methods.apply("baseline", toy.base())
    prompts |= {sample(tuned, [NOISE], free, 60)[0].ids.prompt}
    assert len(prompts) == 1 and len(prompts.pop()) == 60 - min(free, 30)


def test_the_labels_of_a_batch_are_the_completions_alone() -> None:
    batch = completion_batch([Encoded((5, 6), (7, 1)), Encoded((4,), (8, 9, 3, 1))], 0)
    assert batch["input_ids"].tolist() == [[5, 6, 7, 1, 0], [4, 8, 9, 3, 1]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1, 0], [1, 1, 1, 1, 1]]
    assert batch["labels"].tolist() == [[-100, -100, 7, 1, -100], [-100, 8, 9, 3, 1]]
