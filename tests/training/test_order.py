"""The seed fixes which examples a step sees, and every method sees the same ones (protocol, rule 1)."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers import toy_tasks as toy
from helpers.lengths import long_after

from harness import methods
from harness.networks.tuned import Tuned
from harness.training.trainer import Settings, train
from harness.trial import Budget

pytestmark = pytest.mark.slow


def order(method: str, seed: int, **args: Any) -> list[list[int]]:
    """The numbers of the examples of each step: two epochs of eight, four to a step."""
    tuned: Tuned = methods.apply(method, toy.base(), **args)
    seen: list[list[int]] = []

    def collate(examples: list[dict[str, int]]) -> dict[str, torch.Tensor]:
        seen.append([example["number"] for example in examples])
        ids = torch.tensor([[5 + example["number"], 6, 7] for example in examples])
        return {"input_ids": ids, "labels": ids}

    settings = Settings(Budget(train_examples=8, batch_size=4, epochs=2, max_length=8), 1e-3, seed)
    train(tuned, [{"number": number} for number in range(8)], collate, settings)
    return seen[1:]  # the first batch is the probe of the activations


def test_the_seed_fixes_the_order_and_another_seed_gives_another() -> None:
    first, again, other = order("full", 0), order("full", 0), order("full", 1)
    assert first == again != other
    for epoch in (first[:2], first[2:]):
        assert sorted(number for batch in epoch for number in batch) == list(range(8)), "each example once an epoch"
    assert first[:2] != first[2:], "in a new order"


@pytest.mark.parametrize(
    ("method", "args"), long_after(1, [("lora", {"r": 2, "dropout": 0.5}), ("prompt", {}), ("bitfit", {})])
)
def test_every_method_sees_the_same_examples_in_the_same_order(method: str, args: dict[str, Any]) -> None:
    """Whatever random numbers it draws for itself, such as for new weights and dropout."""
    assert order(method, 3, **args) == order("full", 3)
