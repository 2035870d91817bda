"""The bounds that ``benchmarks/data_speed.py`` prints, by hand."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest
from helpers import toy_tasks as toy

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
#: Two layers: 32 x 32 twice, 32 x 16 twice, 32 x 64 three times; five norms.
BODY = 2 * (2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 64) + 5 * 32
HEAD = 32 * 259


@pytest.fixture
def data_speed(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    sys.modules.pop("data_speed", None)
    import data_speed as module

    return module


def bounds(module: ModuleType, *texts: tuple[str, str]) -> tuple[float, float]:
    budget = toy.settings(train_examples=len(texts), batch_size=2).budget
    data = toy.data("generation", [toy.example(*text) for text in texts], max_new_tokens=20)
    return module.bounds(module.Work(toy.base(), data, budget, 0))  # type: ignore[no-any-return]


def test_what_is_not_learnt_needs_no_logits_and_what_is_alike_is_read_once(data_speed: ModuleType) -> None:
    """Tokens are bytes: a prompt of 6, an answer of 4 with its space and its end; 'say a:' and 'say b:' share 4."""
    trainer, alone = 20 * (BODY + HEAD), 20 * BODY + 8 * HEAD
    found = bounds(data_speed, ("say a:", "no"), ("say b:", "no"))
    assert found == pytest.approx((trainer / alone, trainer / (alone - 4 * BODY)))


def test_the_last_token_of_a_prompt_is_never_shared(data_speed: ModuleType) -> None:
    trainer, alone = 20 * (BODY + HEAD), 20 * BODY + 8 * HEAD
    found = bounds(data_speed, ("say a:", "no"), ("say a:", "no"))
    assert found == pytest.approx((trainer / alone, trainer / (alone - 5 * BODY)))


def test_padding_is_that_of_random_batches(data_speed: ModuleType) -> None:
    """8 and 12 tokens, each twice: of the three ways to pair them, two give 48 places and one 40."""
    found, _ = bounds(data_speed, ("a:", "nope"), ("b:", "nope"), ("a:", "nopenope"), ("b:", "nopenope"))
    learnt = 2 * 6 + 2 * 10
    assert found == pytest.approx((2 / 3 * 48 + 40 / 3) * (BODY + HEAD) / (40 * BODY + learnt * HEAD), rel=0.03)
