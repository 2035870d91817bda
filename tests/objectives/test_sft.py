"""Supervised fine-tuning: packing, dialogues and mixtures, each by a known answer."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
import transformers
from helpers import checkpoints
from helpers import toy_tasks as toy
from hypothesis import given
from hypothesis import strategies as st

from harness import methods
from harness.errors import InputError
from harness.models.load import load
from harness.objectives import sft
from harness.tasks.dialogue import encode_dialogue
from harness.tasks.encode import encode_examples
from harness.tasks.logprobs import IGNORED
from harness.tasks.turns import parse_turns
from harness.training.mixing import mix, proportions
from harness.training.packing import PackingCollator, by_example, packed_loss
from harness.training.token_loss import token_loss

pytestmark = pytest.mark.slow

EXAMPLES = [toy.example("one:", "first"), toy.example("a longer prompt:", "second answer"), toy.example("x:", "3")]
TURNS = [
    {"role": "user", "content": "hi"},
    {"role": "assistant", "content": "hello"},
    {"role": "user", "content": "bye"},
    {"role": "assistant", "content": "ciao"},
]
#: The chat markup of SmolLM2, without its system message.
TEMPLATE = (
    "{% for m in messages %}<s>{{ m['role'] }}\n{{ m['content'] }}</s>\n{% endfor %}"
    "{% if add_generation_prompt %}<s>assistant\n{% endif %}"
)


# --- packing ---------------------------------------------------------------------------------------------------------


def test_packed_loss_and_gradients_equal_those_of_the_padded_batch() -> None:
    tokenizer, model = toy.base().tokenizer, toy.base().build()
    rows = [sft.training_example(e) for e in encode_examples(tokenizer, EXAMPLES, 48, 24)]
    padded, packed = sft.CompletionCollator(0)(rows), PackingCollator()(rows)
    assert packed["input_ids"].shape == (1, int(padded["attention_mask"].sum()))
    found = []
    for loss_of, batch in ((token_loss, padded), (packed_loss, packed)):
        model.zero_grad()
        loss, _ = loss_of(model, batch)
        loss.backward()
        found.append((loss.detach(), model.model.layers[0].self_attn.q_proj.weight.grad.clone()))
    torch.testing.assert_close(found[0][0], found[1][0])
    torch.testing.assert_close(found[0][1], found[1][1], rtol=1e-3, atol=1e-6)


@torch.no_grad()
def test_packed_examples_do_not_see_each_other() -> None:
    tokenizer, model = toy.base().tokenizer, toy.base().build()
    rows = [sft.training_example(e) for e in encode_examples(tokenizer, EXAMPLES, 48, 24)]
    alone, _ = packed_loss(model, PackingCollator()(rows[1:]))
    both = PackingCollator()(rows)
    first = len(rows[0]["input_ids"])
    both["labels"][0, :first] = IGNORED
    for token in (77, 88):
        both["input_ids"][0, :first] = token
        torch.testing.assert_close(packed_loss(model, both)[0], alone)


@pytest.mark.parametrize("family", list(checkpoints.DECODERS))
def test_a_row_attended_by_example_is_the_padded_batch(family: str, tmp_path: Path) -> None:
    """The same loss and gradients in every family, and the usual attention again behind the block."""
    folder = checkpoints.save(tmp_path / family, family, transformers.AutoModelForCausalLM)
    tuned = methods.apply("full", load(str(folder), dtype="float32", device="cpu", seed=0))
    tuned.model.eval()
    config, weights = tuned.model.config, list(tuned.trainable.values())
    rows = [sft.training_example(e) for e in encode_examples(tuned.base.tokenizer, EXAMPLES, 48, 24)]

    def loss_and_gradients(loss: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return loss.detach(), *torch.autograd.grad(loss, weights)

    padded = loss_and_gradients(token_loss(tuned.model, sft.CompletionCollator(260)(rows))[0])
    with by_example(tuned, 48):
        assert config._attn_implementation == "sdpa_by_example"
        packed = loss_and_gradients(packed_loss(tuned.model, PackingCollator()(rows))[0])
    assert config._attn_implementation == "sdpa"
    for one, other in zip(packed, padded, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)


def test_a_window_shorter_than_an_example_needs_the_mask(tmp_path: Path) -> None:
    folder = checkpoints.save(tmp_path / "m", "gemma3_text", transformers.AutoModelForCausalLM, sliding_window=16)
    tuned = methods.apply("full", load(str(folder), dtype="float32", device="cpu", seed=0))
    for length, expected in ((16, "sdpa_by_example"), (17, "sdpa")):
        with by_example(tuned, length):
            assert tuned.model.config._attn_implementation == expected


def test_the_first_token_of_a_packed_example_is_predicted_from_nothing() -> None:
    rows = [{"input_ids": [5, 6], "labels": [5, 6]}, {"input_ids": [7, 8, 9], "labels": [7, 8, 9]}]
    packed = PackingCollator()(rows)
    assert packed["labels"].tolist() == [[IGNORED, 6, IGNORED, 8, 9]]
    assert packed["position_ids"].tolist() == [[0, 1, 0, 1, 2]]


def test_training_packed_is_training() -> None:
    data = toy.data("generation", EXAMPLES)
    losses = [
        sft.fit(methods.apply("lora", toy.base()), data, toy.settings(1e-2, epochs=3), packing=packing).losses
        for packing in (False, True)
    ]
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)


@pytest.mark.long
def test_a_loss_of_the_methods_own_is_packed_too() -> None:
    """BitDelta's distillation asks the network by itself."""
    usual = methods.apply("lora", toy.base())
    own = dataclasses.replace(usual, own_loss=lambda model, batch: 2 * packed_loss(model, batch)[0])
    data = toy.data("generation", EXAMPLES)
    doubled, plain = (sft.fit(tuned, data, toy.settings(0.0), packing=True).losses for tuned in (own, usual))
    assert doubled == pytest.approx([2 * loss for loss in plain])


def test_virtual_tokens_cannot_be_packed() -> None:
    with pytest.raises(InputError, match="virtual tokens"):
        sft.fit(methods.apply("prompt", toy.base()), toy.data("generation", EXAMPLES), toy.settings(), packing=True)


# --- dialogues -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("template", [None, TEMPLATE])
def test_only_the_turns_of_the_assistant_are_learnt(template: str | None) -> None:
    tokenizer = toy.base().tokenizer
    tokenizer.chat_template = template
    ids, learnt = encode_dialogue(tokenizer, TURNS, 200, 20)
    words = tokenizer.decode([token for token, learn in zip(ids, learnt, strict=True) if learn])
    assert words == "hello</s>ciao</s>"
    whole = tokenizer.decode(ids)
    assert "hi" in whole and "bye" in whole and whole.count("hello") == 1


def test_a_dialogue_is_cut_and_reaches_the_loss() -> None:
    data = toy.data("generation", [toy.example("", "", turns=json.dumps(TURNS))] * 4)
    history = sft.fit(methods.apply("lora", toy.base()), data, toy.settings(max_length=40), dialogue_field="turns")
    # Of the two exchanges the later one is left: what stands before the last answer may have 36 tokens.
    assert history.steps[0].tokens == 4 * len("user: bye\nassistant: ciao.")
    with pytest.raises(InputError, match="did you mean 'turns'"):
        sft.fit(methods.apply("lora", toy.base()), data, toy.settings(), dialogue_field="turn")


@pytest.mark.parametrize(
    ("mix_with", "says"), [(["trek"], "unknown name 'trek'; did you mean 'trec'"), (["toy"], "is the task itself")]
)
def test_a_task_that_cannot_be_mixed_in_is_told_before_anything_is_encoded(
    monkeypatch: pytest.MonkeyPatch, mix_with: list[str], says: str
) -> None:
    monkeypatch.setattr(sft, "encode_once", lambda *_: pytest.fail("it was not told in time"))
    data = toy.data("generation", [toy.example("say a:", "a")])
    with pytest.raises(InputError, match=says):
        sft.fit(methods.apply("lora", toy.base()), data, toy.settings(), mix_with=mix_with)


LONG = [
    {"role": "system", "content": "Be kind."},
    {"role": "user", "content": "small talk " * 9},
    {"role": "assistant", "content": "oh well"},
    {"role": "user", "content": "What is " + "very " * 20 + "large?"},
    {"role": "assistant", "content": "a whale"},
    {"role": "user", "content": "thanks"},
]


def test_an_answer_of_a_real_chat_is_learnt_up_to_the_end_of_its_turn() -> None:
    """What follows the end of a turn in SmolLM2's template, a line break, is read and not learnt."""
    tokenizer = load("smollm2-135m").tokenizer
    ids, learnt = encode_dialogue(tokenizer, TURNS, 200, 20)
    words = tokenizer.decode([token for token, learn in zip(ids, learnt, strict=True) if learn])
    assert words == "hello<|im_end|>ciao<|im_end|>"
    whole = tokenizer.apply_chat_template(TURNS, tokenize=False)
    assert tokenizer.decode(ids) + "\n" == whole


def test_training_on_dialogues_learns_the_turns_of_the_assistant(monkeypatch: pytest.MonkeyPatch) -> None:
    tuned = methods.apply("lora", toy.base())
    given: list[dict[str, list[int]]] = []
    monkeypatch.setattr(sft, "train", lambda _tuned, rows, *_args, **_kwargs: given.extend(rows))
    data = toy.data("generation", [toy.example("", "", turns=json.dumps(TURNS))])
    sft.fit(tuned, data, toy.settings(max_length=120), dialogue_field="turns")
    (row,) = given
    assert len(row["labels"]) == len(row["input_ids"])
    assert tuned.base.tokenizer.decode([label for label in row["labels"] if label != IGNORED]) == "hello</s>ciao</s>"


@pytest.mark.parametrize("template", [None, TEMPLATE])
def test_a_long_dialogue_loses_its_oldest_turns_and_then_words_of_the_last_question(template: str | None) -> None:
    tokenizer = toy.base().tokenizer
    tokenizer.chat_template = template
    ids, learnt = encode_dialogue(tokenizer, LONG, 180, 10)
    text = tokenizer.decode(ids)
    assert "Be kind." in text and LONG[3]["content"] in text and "small talk" not in text and "thanks" not in text
    ids, learnt = encode_dialogue(tokenizer, LONG, 110, 10)
    text = tokenizer.decode(ids)
    assert len(ids) <= 110 and "Be kind." in text and "What is very" in text and "very large?" in text
    assert tokenizer.decode([i for i, learn in zip(ids, learnt, strict=True) if learn]) == "a whale</s>"


def test_only_as_many_turns_are_lost_as_have_to_be() -> None:
    tokenizer = toy.base().tokenizer
    turns = [{"role": role, "content": f"{role} {i}"} for i in range(3) for role in ("user", "assistant")]
    text = tokenizer.decode(encode_dialogue(tokenizer, turns, 90, 10)[0])
    # The tokenizer of bytes drops the line break behind its end token.
    assert text == "user: user 1\nassistant: assistant 1</s>user: user 2\nassistant: assistant 2</s>"


def test_how_much_of_a_dialogue_is_left_does_not_tell_the_length_of_its_last_answer() -> None:
    tokenizer = toy.base().tokenizer
    read = []
    for answer in ("a", "a long, long answer that will be cut"):
        ids, learnt = encode_dialogue(tokenizer, [*LONG[:4], {"role": "assistant", "content": answer}], 90, 10)
        read.append([i for i, learn in zip(ids, learnt, strict=True) if not learn])
    assert read[0] == read[1] and len(read[0]) == 80


def test_a_speaker_that_no_template_knows_is_named() -> None:
    with pytest.raises(InputError, match="role: unknown name 'narrator'"):
        parse_turns(json.dumps([{"from": "narrator", "value": "once"}, *TURNS]))
    with pytest.raises(InputError, match="dialogue"):
        parse_turns(json.dumps([*TURNS, {"role": "assistant", "content": None}]))


def test_turns_are_read_in_both_common_forms_and_nothing_else() -> None:
    shared = [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "hello"}]
    assert parse_turns(json.dumps(shared)) == TURNS[:2]
    for wrong in ("{", "[1]", '[{"role": "assistant"}]', json.dumps(TURNS[:1])):
        with pytest.raises(InputError, match="dialogue"):
            parse_turns(wrong)


# --- mixtures --------------------------------------------------------------------------------------------------------


def test_proportions_by_hand() -> None:
    assert proportions({"a": 900, "b": 100}, 10) == {"a": 9, "b": 1}
    # 2.67 and 1.33 of four: the one that is left goes to the larger remainder.
    assert proportions({"a": 2, "b": 1}, 4) == {"a": 3, "b": 1}
    # Of a only 100 count, so both are alike.
    assert proportions({"a": 900, "b": 100}, 10, cap=100) == {"a": 5, "b": 5}
    assert proportions({"a": 1, "b": 1, "c": 1}, 4) == {"a": 2, "b": 1, "c": 1}


@given(st.dictionaries(st.text(max_size=3), st.integers(1, 10_000), min_size=1, max_size=6), st.integers(0, 500))
def test_proportions_add_up_and_keep_the_order_of_sizes(sizes: dict[str, int], total: int) -> None:
    found = proportions(sizes, total, cap=1000)
    assert sum(found.values()) == total
    assert all(found[a] <= found[b] + 1 for a in sizes for b in sizes if sizes[a] <= sizes[b])


def test_stages_keep_their_order_and_mixtures_alternate() -> None:
    sets = {"a": ["a"] * 4, "b": ["b"] * 2}
    assert mix(sets, 6, staged=True) == ["a", "a", "a", "a", "b", "b"]
    assert mix(sets, 3, staged=False) == ["a", "b", "a"]
    assert mix({"a": ["x", "y"]}, 5) == ["x", "y", "x", "y", "x"]
