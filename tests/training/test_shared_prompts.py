"""What the prompts of a batch begin with is read once, and no number that is learnt changes."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from helpers import checkpoints
from helpers import toy_tasks as toy
from hypothesis import given
from hypothesis import strategies as st

from harness import methods, objectives
from harness.execution import Execution, NotActive
from harness.models.load import load
from harness.objectives import sft
from harness.tasks.encode import encode_examples
from harness.tasks.logprobs import IGNORED
from harness.training.packing import (
    PackingCollator,
    by_example,
    common_beginning,
    example_lengths,
    packed_loss,
    positions_read,
    starts,
    whole_tokens,
)
from harness.training.token_loss import token_loss
from harness.training.trainer import History

pytestmark = pytest.mark.slow

#: A byte is a token: the prompts begin with the same four. Prompts of 6, 8 and 6 tokens, answers of 3, 6 and 4.
EXAMPLES = [toy.example("say a:", "y"), toy.example("say bcd:", "nnnn"), toy.example("say e:", "no")]
BOTH = Execution(packing=True, shared_prompts=True)


def row(prompt: list[int], answer: list[int]) -> dict[str, Any]:
    return {"input_ids": [*prompt, *answer], "labels": [IGNORED] * len(prompt) + answer}


def test_a_row_by_hand() -> None:
    rows = [row([1, 2, 3], [7]), row([1, 2, 4, 5], [8, 9]), row([1, 2, 6], [7])]
    batch = PackingCollator(shared_prompts=True)(rows)
    assert batch["input_ids"].tolist() == [[1, 2, 3, 7, 4, 5, 8, 9, 6, 7]]
    assert batch["position_ids"].tolist() == [[0, 1, 2, 3, 2, 3, 4, 5, 2, 3]]
    assert batch["labels"].tolist() == [[IGNORED] * 3 + [7] + [IGNORED] * 2 + [8, 9, IGNORED, 7]]
    assert starts(batch["position_ids"]).tolist() == [0, 4, 8, 10]
    assert example_lengths(batch["position_ids"]).tolist() == [4, 6, 4]
    assert int(whole_tokens(batch["position_ids"])) == 4 + 6 + 4
    assert positions_read(batch) == [range(4), range(2, 6), range(2, 4)]


def test_positions_are_read_whole_without_sharing() -> None:
    mask = torch.tensor([[1, 1, 1, 0], [1, 0, 0, 0]])
    assert positions_read({"input_ids": mask, "attention_mask": mask}) == [range(3), range(1)]
    assert positions_read({"input_ids": torch.zeros(2, 5)}) == [range(5), range(5)]
    packed = PackingCollator()([row([1, 2], [3]), row([1], []), row([1, 2], [])])
    assert positions_read(packed) == [range(3), range(1), range(2)]


TOKENS = st.lists(st.integers(1, 2), min_size=1, max_size=5)


@given(st.lists(st.tuples(TOKENS, TOKENS), min_size=1, max_size=4))
def test_every_example_can_be_read_from_its_row(pairs: list[tuple[list[int], list[int]]]) -> None:
    """However prompts and answers begin alike: no answer is shared, and neither is what predicts its first token."""
    rows = [row(*pair) for pair in pairs]
    alike = common_beginning(rows)
    assert 0 <= alike < min(len(prompt) for prompt, _ in pairs)
    batch = PackingCollator(shared_prompts=True)(rows)
    assert int(whole_tokens(batch["position_ids"])) == sum(len(one["input_ids"]) for one in rows)
    places = starts(batch["position_ids"]).tolist()
    assert len(places) == len(rows) + 1
    first = batch["input_ids"][0, :alike].tolist()
    for number, whole in enumerate(rows):
        own = slice(places[number], places[number + 1])
        before = first if number else []
        assert [*before, *batch["input_ids"][0, own].tolist()] == whole["input_ids"]
        assert batch["labels"][0, own].tolist() == [IGNORED, *whole["labels"][len(before) + 1 :]]


def encoded(tokenizer: Any) -> list[dict[str, Any]]:
    return [sft.training_example(one) for one in encode_examples(tokenizer, EXAMPLES, 48, 24)]


@pytest.mark.parametrize("family", list(checkpoints.DECODERS))
def test_loss_and_gradients_are_those_of_the_padded_batch(family: str, tmp_path: Path) -> None:
    """In every family, and the usual attention again behind the block."""
    folder = checkpoints.save(tmp_path / family, family, transformers.AutoModelForCausalLM)
    tuned = methods.apply("full", load(str(folder), dtype="float32", device="cpu", seed=0))
    tuned.model.eval()
    weights, rows = list(tuned.trainable.values()), encoded(tuned.base.tokenizer)
    assert common_beginning(rows) == 4

    def loss_and_gradients(loss: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return loss.detach(), *torch.autograd.grad(loss, weights)

    padded = loss_and_gradients(token_loss(tuned.model, sft.CompletionCollator(260)(rows))[0])
    with by_example(tuned, 48, shared_prompts=True):
        packed = loss_and_gradients(packed_loss(tuned.model, PackingCollator(shared_prompts=True)(rows))[0])
    assert tuned.model.config._attn_implementation == "sdpa"
    for one, other in zip(packed, padded, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)


@torch.no_grad()
def test_examples_see_what_they_share_and_not_each_other() -> None:
    tuned = methods.apply("full", toy.base())
    rows = encoded(tuned.base.tokenizer)
    batch = PackingCollator(shared_prompts=True)(rows)
    own = slice(*starts(batch["position_ids"])[1:3].tolist())
    batch["labels"][0] = torch.where(torch.arange(batch["labels"].shape[1]) < own.start, IGNORED, batch["labels"][0])
    batch["labels"][0, own.stop :] = IGNORED

    def loss(places: slice, token: int) -> float:
        changed = {name: value.clone() for name, value in batch.items()}
        changed["input_ids"][0, places] = token
        return float(packed_loss(tuned.model, changed)[0])

    with by_example(tuned, 48, shared_prompts=True):
        usual = float(packed_loss(tuned.model, batch)[0])
        for others in (slice(4, own.start), slice(own.stop, None)):
            assert loss(others, 77) == pytest.approx(usual, abs=1e-6)
        assert loss(slice(0, 4), 77) != pytest.approx(usual, abs=1e-4)


def trained(execution: Execution = BOTH, examples: Any = EXAMPLES) -> History:
    settings = dataclasses.replace(toy.settings(train_examples=3, batch_size=3), execution=execution)
    data = toy.data("generation", examples, max_new_tokens=20)
    return objectives.fit("sft", methods.apply("full", toy.base()), data, settings)


def test_tokens_are_those_of_the_examples_and_work_is_that_of_the_row() -> None:
    history, packed = trained(), trained(Execution(packing=True))
    assert [(step.tokens, step.slots) for step in packed.steps] == [(33, 33)]
    assert [(step.tokens, step.slots) for step in history.steps] == [(33, 33 - 2 * 4)]
    assert history.padding_share == 0
    assert history.proof is not None and history.proof.evidence["shared_prompts"] == "8 tokens of 33 not read again"
    assert history.first_step_flops is not None and packed.first_step_flops is not None
    assert 25 / 33 < history.first_step_flops / packed.first_step_flops < 1, "logits and attention are not shared"
    assert history.activations_bytes is not None and packed.activations_bytes is not None
    assert history.activations_bytes < packed.activations_bytes


def test_where_nothing_is_shared_the_row_does_not_say_so() -> None:
    alien = [toy.example("a:", "y"), toy.example("b:", "y"), toy.example("c:", "y")]
    with pytest.raises(NotActive, match=r"shared_prompts: true was asked for, and false was active \(0 tokens of 15"):
        trained(examples=alien)


def test_a_loss_of_the_methods_own_may_be_of_the_prompts() -> None:
    own = dataclasses.replace(
        methods.apply("full", toy.base()), own_loss=lambda model, batch: packed_loss(model, batch)[0]
    )
    settings = dataclasses.replace(toy.settings(), execution=BOTH)
    with pytest.raises(NotActive, match=r"^execution\.shared_prompts: 'full' has a loss of its own"):
        sft.fit(own, toy.data("generation", EXAMPLES), settings)


def test_without_attention_that_can_be_chosen_nothing_can_be_shared(tmp_path: Path) -> None:
    folder = checkpoints.save(tmp_path / "m", "gemma3_text", transformers.AutoModelForCausalLM, sliding_window=16)
    tuned = methods.apply("full", load(str(folder), dtype="float32", device="cpu", seed=0))
    with by_example(tuned, 16, shared_prompts=True):
        assert tuned.model.config._attn_implementation == "sdpa_by_example"
    with (
        pytest.raises(NotActive, match=r"^execution\.shared_prompts: .* no sliding window below 17 tokens"),
        by_example(tuned, 17, shared_prompts=True),
    ):
        pass
    eager = methods.apply("full", toy.base(attention="eager"))
    with (
        pytest.raises(NotActive, match=r"^execution\.shared_prompts: .* needs the attention sdpa"),
        by_example(eager, 16, shared_prompts=True),
    ):
        pass
