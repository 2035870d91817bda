"""The learning rates of a run, step by step, whichever trainer runs it; and that no step is wasted."""

from __future__ import annotations

import pytest
import torch
from helpers import toy_tasks as toy
from helpers.lengths import long_after

from harness import methods, objectives
from harness.training.schedule import schedule, share_of_peak
from harness.training.trainer import History

pytestmark = pytest.mark.slow

#: Objectives by who trains them: this project's trainer, TRL's trainers, PPO's own loop.
OBJECTIVES = ["sft", "dpo", "rrhf", "kto", "orpo", "rloo", "grpo", "best_of_n", "ppo"]


@pytest.mark.parametrize(
    ("steps", "shares"),
    [
        (1, [1.0]),
        (2, [1.0, 1 / 2]),
        (10, [1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1]),
        (100, [*(k / 6 for k in range(1, 7)), *((101 - k) / 95 for k in range(7, 101))]),
    ],
)
def test_the_rates_of_a_run_by_hand(steps: int, shares: list[float]) -> None:
    assert [share_of_peak(step, steps) for step in range(1, steps + 1)] == pytest.approx(shares)
    assert share_of_peak(steps + 1, steps) == 0, "it ends at 0, behind the last step"
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5)
    rates, scheduler = [], schedule(optimizer, steps)
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert rates == pytest.approx([0.5 * share for share in shares])


def _train(objective: str, **budget: int) -> tuple[History, dict[str, float]]:
    """A run on the toy pairs, and by name how far each trainable parameter has gone."""
    tuned = methods.apply("full", toy.base())
    before = {name: p.detach().clone() for name, p in tuned.trainable.items()}
    online = {"reward": lambda _, answers: torch.arange(len(answers), dtype=torch.float32)}
    args = online if objective in ("rloo", "grpo", "best_of_n", "ppo") else {}
    data = toy.data("preference", toy.PAIRS, max_new_tokens=2)
    history = objectives.fit(objective, tuned, data, toy.settings(1e-3, **budget), **args)
    return history, {name: float((p.detach() - before[name]).abs().max()) for name, p in tuned.trainable.items()}


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_every_objective_trains_at_these_rates(objective: str) -> None:
    history, _ = _train(objective, batch_size=8, epochs=17)
    shares = [1 / 2, 1.0, *(k / 16 for k in range(15, 0, -1))]
    assert [step.learning_rate for step in history.steps] == pytest.approx([1e-3 * share for share in shares])


@pytest.mark.parametrize("objective", long_after(4, OBJECTIVES))
def test_the_first_step_changes_the_weights(objective: str) -> None:
    history, moved = _train(objective, batch_size=8)
    assert len(history.steps) == 1
    assert max(moved.values()) > 1e-4
