"""The estimate of every way to train, against the tensors of a step that trains so."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from helpers import toy_tasks as toy

from harness import methods
from harness.estimate import planned
from harness.estimate.estimate import estimate
from harness.execution import Execution
from harness.models.load import load
from harness.objectives.sft import CompletionCollator
from harness.training import head_loss
from harness.training.token_loss import token_loss
from harness.training.trainer import History, train
from harness.trial import Budget, Trial

pytestmark = pytest.mark.slow

BATCH, LENGTH = 4, 24


def real(model: str, method: str, how: Execution) -> History:
    """One step on texts of full length, of which every token but the first is learnt."""
    base = dataclasses.replace(load(model, device="cpu"), attention=how.attention)
    tuned = methods.apply(method, base)
    ids = torch.randint(3, 250, (BATCH, LENGTH), generator=torch.Generator().manual_seed(0)).tolist()
    examples = [{"input_ids": row, "labels": row} for row in ids]
    settings = dataclasses.replace(toy.settings(train_examples=BATCH, batch_size=BATCH), execution=how)
    at_head = head_loss.head_loss(tuned.model, how.loss)

    def loss(network: Any, batch: Any) -> Any:
        return token_loss(network, batch, at_head=at_head)

    plain: dict[str, Any] = {} if at_head is None else {"loss": loss}
    return train(tuned, examples, CompletionCollator(0), settings, token_loss=how.loss, **plain)


@pytest.mark.parametrize("method", ["full", "lora"])
@pytest.mark.parametrize(
    "how",
    [
        {"attention": "eager"},
        {"loss": "chunked"},
        {"gradient_checkpointing": True},
        {"accumulation": 2},
        {"optimizer": "lion"},
        {"optimizer": "adafactor"},
    ],
    ids=lambda how: next(iter(how)),
)
def test_the_estimate_is_what_a_step_takes(method: str, how: dict[str, Any]) -> None:
    execution = Execution(**how)
    history = real("tiny-llama", method, execution)
    step = estimate("tiny-llama", method, batch_size=BATCH, length=LENGTH, dtype="float32", execution=execution)
    assert step.gradients_bytes == history.gradients_bytes
    assert step.optimizer_bytes == history.optimizer_bytes
    assert step.activations_bytes == pytest.approx(history.activations_bytes, rel=0.02)
    assert step.flops == pytest.approx(history.first_step_flops, rel=0.02)


def test_states_in_8_bits() -> None:
    """A matrix of 8,192 numbers is kept in 8 bits with 32 scales; a vector of 100 and an embedding stay in 32 bits."""
    import bitsandbytes as bnb

    from harness.estimate.states import count, state_bytes
    from harness.measure.memory import optimizer_bytes

    # Which parameters stay in 32 bits is a list of the whole process, and other tests have filled it.
    bnb.optim.GlobalOptimManager.get_instance().initialize()
    model = torch.nn.Sequential(torch.nn.Linear(64, 128, bias=False), torch.nn.Linear(10, 10, bias=False))
    optimizer = bnb.optim.AdamW8bit(model.parameters(), lr=1e-3)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    trained = count(model)
    assert (trained.elements, trained.in_8_bits, trained.blocks) == (8292, 8192, 32)
    optimizer.step()
    assert state_bytes("adamw_8bit", trained, 4) == optimizer_bytes(optimizer)
    embedding = torch.nn.Embedding(100, 64)
    embedding.weight.grad = torch.ones(100, 64)
    assert count(embedding).in_8_bits == 0


def test_parts_keep_the_gradients_of_those_before_them() -> None:
    def of(**how: Any) -> Any:
        return estimate("pythia-70m", batch_size=8, length=128, dtype="float32", execution=Execution(**how))

    whole, parts, packed = of(), of(accumulation=8), of(packing=True)
    one = estimate("pythia-70m", batch_size=1, length=128, dtype="float32")
    assert parts.flops == whole.flops == 8 * one.flops
    assert parts.activations_bytes == one.activations_bytes
    assert one.total_bytes < parts.total_bytes < whole.total_bytes
    assert parts.total_bytes >= parts.weights_bytes + parts.optimizer_bytes + parts.gradients_bytes
    assert packed.total_bytes == whole.total_bytes + (8 * 128) ** 2


def test_a_plan_asks_for_the_way_in_which_a_trial_trains() -> None:
    trial = Trial(
        notebook="methods/full",
        method="full",
        objective="sft",
        model="tiny-llama",
        task="factual_summary",
        learning_rate=1e-3,
        budget=Budget(batch_size=4, max_length=32),
    )
    settings = [
        planned.Setting.of(trial.model_copy(update={"execution": Execution(**how)}))
        for how in ({}, {"accumulation": 2}, {"optimizer": "paged_adamw_8bit"})
    ]
    assert settings[0] is not None and settings[1] is not None and settings[2] is not None
    assert [one.has_step for one in settings if one] == [True, True, False], "states in main memory are not traced"
    assert (settings[0].execution, settings[1].execution) == ("{}", '{"accumulation":2}')
    assert settings[0].key() != settings[1].key()
