"""Latency and training speed against a clock that the tests wind: every number by hand, no real second in it."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace as Namespace
from typing import Any

import pytest
import torch
from helpers.fake_clock import Clock
from torch import nn

from harness.measure import latency, training
from harness.measure.latency import Latency, bandwidth_utilisation, generation_latency, prediction_latency
from harness.measure.training import Step, StepTimer, speed, utilisation

CPU = torch.device("cpu")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    for module in (latency, training):
        clock.put_into(module, monkeypatch)
    return clock


class Generator:
    """Takes the seconds of ``runs`` for its tokens, one row for each run, and goes on working after the last one."""

    def __init__(self, clock: Clock, runs: Sequence[Sequence[float]]) -> None:
        self.clock, self.runs = clock, list(runs)
        self.calls: list[dict[str, Any]] = []

    def generate(self, **given: Any) -> None:
        run = self.runs[len(self.calls)]
        self.calls.append(given)
        (watch,) = given["stopping_criteria"]
        for seconds in run[: given["max_new_tokens"]]:
            self.clock.work(seconds)
            if bool(watch(given["input_ids"], None).all()):
                break
        self.clock.work(1000.0)


RUNS = [
    [500.0, 500.0, 500.0, 500.0],  # warms up
    [2.0, 0.1, 0.2, 0.3],
    [6.0, 0.4, 0.5, 0.6],
    [1.0, 0.7, 0.8, 0.9],
]


def rows_of(model: Any, **settings: Any) -> Any:
    return generation_latency(model, CPU, 50, **{"batch_size": 2, "prompt_tokens": 5, "new_tokens": 4, **settings})


def test_prefill_is_the_first_token_and_decode_every_further_one(clock: Clock) -> None:
    prefill, decode = rows_of(Generator(clock, RUNS), variant="merged")
    assert (prefill.phase, decode.phase) == ("prefill", "decode")
    for row in (prefill, decode):
        assert (row.variant, row.batch_size, row.prompt_tokens, row.new_tokens) == ("merged", 2, 5, 4)
    # The median of 1, 2 and 6; the 95th percentile lies nine tenths of the way from the second to the third.
    assert prefill.p50_s == 2.0
    assert prefill.p95_s == pytest.approx(2 + 0.9 * 4)
    assert prefill.tokens_per_s == pytest.approx(2 * 5 * 3 / 9)
    # 0.1, 0.2 … 0.9; each step gives one token for each text of the batch.
    assert decode.p50_s == pytest.approx(0.5)
    assert decode.p95_s == pytest.approx(0.86)
    assert decode.tokens_per_s == pytest.approx(2 * 9 / 4.5)


def test_greedy_generation_of_exactly_so_many_tokens_after_one_run_of_two(clock: Clock) -> None:
    model = Generator(clock, RUNS)
    rows_of(model)
    assert [(c["min_new_tokens"], c["max_new_tokens"]) for c in model.calls] == [(2, 2), (4, 4), (4, 4), (4, 4)]
    for call in model.calls:
        assert call["do_sample"] is False
        assert call["input_ids"].shape == (2, 5) and bool((call["attention_mask"] == 1).all())
        assert int(call["input_ids"].min()) >= 10 and int(call["input_ids"].max()) < 50
        assert torch.equal(call["input_ids"], model.calls[0]["input_ids"])


def test_a_prediction_is_timed_after_three_to_warm_up(clock: Clock) -> None:
    seconds = iter([900.0, 800.0, 700.0, 1.0, 2.0, 6.0])
    seen: list[torch.Tensor] = []

    def model(input_ids: torch.Tensor, attention_mask: torch.Tensor) -> None:
        seen.append(attention_mask)
        clock.work(next(seconds))

    (row,) = prediction_latency(model, CPU, 50, batch_size=2, prompt_tokens=5, repeats=3)
    assert (row.phase, row.new_tokens, row.p50_s) == ("predict", 0, 2.0)
    assert row.p95_s == pytest.approx(5.6)
    assert row.tokens_per_s == pytest.approx(2 * 5 * 3 / 9)
    assert len(seen) == 6 and all(bool((mask == 1).all()) for mask in seen)


def test_the_work_of_an_act_is_waited_for_and_what_was_queued_before_is_not_its_own(clock: Clock) -> None:
    clock.work(100.0)
    seconds = iter([50.0, 1.0, 2.0, 6.0])
    answer = latency.timed(lambda: clock.work(next(seconds)), CPU, repeats=3)
    assert answer.p50_s == 2.0
    assert answer.p95_s == pytest.approx(5.6)


def test_bandwidth_is_the_weights_once_for_a_batch() -> None:
    row = Latency("plain", 8, 64, 16, "decode", p50_s=0.5, p95_s=2.0, tokens_per_s=16.0)
    assert bandwidth_utilisation(row, 3 * 10**9, 12e9) == pytest.approx(0.5)


# --- training steps --------------------------------------------------------------------------------------------------


class Run:
    """The calls that a ``Trainer`` makes of its callbacks, on a network of 10 x 5 weights and 5 biases."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.model = nn.Linear(10, 5)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), fused=True)
        self.timer = StepTimer(CPU)

    def step(self, seconds: float, rows: int = 1) -> None:
        # The timer looks at none of these.
        state: Any = (None, None, None)
        self.timer.on_step_begin(*state)
        self.clock.work(seconds)
        self.model(torch.ones(rows, 10)).sum().backward()
        self.timer.on_pre_optimizer_step(*state, model=self.model)
        self.optimizer.step()
        self.timer.on_step_end(*state, optimizer=Namespace(optimizer=self.optimizer))
        self.optimizer.zero_grad()


def test_a_step_is_what_lies_between_its_begin_and_its_end(clock: Clock) -> None:
    run = Run(clock)
    for seconds in (3.0, 2.0, 4.0):
        clock.work(100.0)  # fetching the batch
        run.step(seconds)
        clock.now += 10.0  # logging
    assert run.timer.seconds == [3.0, 2.0, 4.0]


def test_counting_gradients_is_no_part_of_a_step_and_happens_once(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = iter([11, 22])

    def slow(model: nn.Module) -> int:
        clock.now += 7.0
        return next(counts)

    monkeypatch.setattr(training, "gradients_bytes", slow)
    run = Run(clock)
    run.step(3.0)
    run.step(2.0)
    assert run.timer.seconds == [3.0, 2.0]
    assert run.timer.gradients_bytes == 11


def test_the_first_step_tells_gradients_states_and_flops(clock: Clock) -> None:
    run = Run(clock)
    run.step(1.0, rows=3)
    run.step(1.0, rows=7)
    assert run.timer.gradients_bytes == 4 * 55
    # Two moments of 55 numbers, and a counter for each of the two tensors.
    assert run.timer.optimizer_bytes == 2 * 4 * 55 + 2 * 4
    # Forward, and the gradient of the weight: nobody needs that of the input.
    assert run.timer.flops == 2 * (2 * 3 * 10 * 5)
    assert run.timer._counting is None


def test_a_step_that_fails_stops_the_count(clock: Clock) -> None:
    timer = StepTimer(CPU)
    nothing: Any = None
    timer.on_step_begin(nothing, nothing, nothing)
    counter = timer._counting
    assert counter is not None
    timer.close()
    assert timer._counting is None
    torch.ones(3, 3) @ torch.ones(3, 3)
    assert counter.flops == 0


def steps(*seconds: float) -> list[Step]:
    """Two slow steps to warm up, then these; 10 tokens in 40 places in the first, one more of each in every next."""
    every = (50.0, 90.0, *seconds)
    return [Step(n, s, tokens=9 + n, loss=1.0, slots=39 + n) for n, s in enumerate(every, 1)]


def test_speed_by_hand() -> None:
    rate = speed(steps(1.0, 2.0, 6.0))
    assert rate is not None
    assert rate.step_s_median == 2.0
    assert rate.step_s_p95 == pytest.approx(5.6)
    # Tokens of steps three to five, padding left out.
    assert rate.tokens_per_s == pytest.approx((12 + 13 + 14) / 9)
    assert training.WARMUP_STEPS == 2
    later = speed(steps(1.0, 2.0, 6.0), warmup=4)
    assert later is not None and later.step_s_median == 6.0


def test_utilisation_by_hand() -> None:
    # 42 + 43 + 44 places at 6 FLOPs in 9 seconds, of a machine that does 172 a second.
    assert utilisation(steps(1.0, 2.0, 6.0), 6.0, 172.0) == pytest.approx(129 * 6 / 9 / 172)
    unknown = [*steps(1.0), Step(4, 1.0, 5, 1.0)]
    assert utilisation(unknown, 6.0, 172.0) is None
