"""The trainer against a bare loop of torch: the same batches, rates, clipping and optimiser give the same weights."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from helpers import toy_tasks as toy

from harness import methods
from harness.objectives.sft import CompletionCollator
from harness.training.token_loss import token_loss
from harness.training.trainer import Diverged, Settings, train
from harness.trial import Budget

pytestmark = pytest.mark.slow

RATE = 2e-3
#: Six rows of different length; each is told by its first token.
ROWS = [{"input_ids": [10 + i, *range(40, 44 + i)], "labels": [-100, *range(40, 44 + i)]} for i in range(6)]
#: Two epochs of three steps: no more than one of them warms up.
SHARES = [1.0, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6]


def settings(seed: int = 0, **budget: Any) -> Settings:
    return Settings(Budget(train_examples=6, batch_size=2, epochs=2, max_length=16, **budget), RATE, seed)


def trained(seed: int = 0, method: str = "full", ordered: bool = False, weight: float = 1.0) -> tuple[Any, Any, Any]:
    """What was there before, what is there after, and the batches in between."""
    tuned = methods.apply(method, toy.base())
    before = copy.deepcopy(tuned.model)
    batches: list[Mapping[str, torch.Tensor]] = []

    def loss(model: Any, batch: Mapping[str, torch.Tensor]) -> Any:
        if model.training and torch.is_grad_enabled():
            batches.append({name: tensor.clone() for name, tensor in batch.items()})
        value, seen = token_loss(model, batch)
        return weight * value, seen

    history = train(tuned, ROWS, CompletionCollator(0), settings(seed), loss=loss, ordered=ordered)
    return before, (tuned, history), batches[-6:]


@pytest.mark.parametrize("weight", [1.0, 40.0])
def test_the_trainer_is_adamw_with_clipping_and_these_rates(weight: float) -> None:
    """Multiplied by 40, every gradient is longer than 1 and is cut."""
    model, (tuned, history), batches = trained(weight=weight)
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=RATE, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0)
    model.train()
    losses, norms = [], []
    for batch, share in zip(batches, SHARES, strict=True):
        optimizer.param_groups[0]["lr"] = RATE * share
        loss = weight * token_loss(model, batch)[0]
        loss.backward()
        norms.append(float(torch.nn.utils.clip_grad_norm_(parameters, 1.0)))
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss))
    assert history.losses == pytest.approx(losses, rel=1e-4)
    assert [step.grad_norm for step in history.steps] == pytest.approx(norms, rel=1e-3)
    assert [step.learning_rate for step in history.steps] == pytest.approx([RATE * share for share in SHARES])
    assert [step.tokens for step in history.steps] == [int(batch["attention_mask"].sum()) for batch in batches]
    assert [step.slots for step in history.steps] == [batch["attention_mask"].numel() for batch in batches]
    for (name, ours), theirs in zip(tuned.model.named_parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6, msg=name)
    assert not tuned.model.training


def firsts(batches: Any) -> list[list[int]]:
    return [batch["input_ids"][:, 0].tolist() for batch in batches]


def test_the_order_follows_from_the_seed_alone_and_is_new_in_every_epoch() -> None:
    full, again, lora, other = (
        firsts(trained(seed, method)[2]) for seed, method in ((0, "full"), (0, "full"), (0, "lora"), (1, "full"))
    )
    assert full == again == lora != other
    epochs = [list(itertools.chain(*part)) for part in (full[:3], full[3:])]
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(10, 16))
    assert epochs[0] != epochs[1] and list(range(10, 16)) not in epochs


def test_an_order_that_is_asked_for_is_kept() -> None:
    assert firsts(trained(ordered=True)[2]) == [[10, 11], [12, 13], [14, 15]] * 2


def test_training_stops_where_the_loss_is_no_number() -> None:
    def loss(model: Any, batch: Mapping[str, torch.Tensor]) -> Any:
        value, seen = token_loss(model, batch)
        return value * float("nan"), seen

    tuned = methods.apply("full", toy.base())
    with pytest.raises(Diverged, match="the loss is nan at step 1 of 6"):
        train(tuned, ROWS, CompletionCollator(0), settings(), loss=loss)


def test_progress_is_told_after_every_step() -> None:
    told: list[tuple[int, int, float | None]] = []
    asked = Settings(settings().budget, RATE, 0, on_step=lambda *now: told.append(now))
    history = train(methods.apply("full", toy.base()), ROWS, CompletionCollator(0), asked, loss=token_loss)
    assert [(step, steps) for step, steps, _ in told] == [(i, 6) for i in range(1, 7)]
    assert [loss for *_, loss in told] == history.losses
