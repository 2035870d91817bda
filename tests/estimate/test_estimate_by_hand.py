"""The arithmetic of an estimate on traces that are made up, and on a step of one layer: every number by hand."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace as Namespace
from typing import Any

import pytest
import torch
from torch import nn

from harness.estimate import estimate as estimates
from harness.estimate import limit, planned, worker
from harness.estimate.estimate import Estimate, estimate
from harness.estimate.fits import Fit, parse_bytes
from harness.estimate.meta import meta_base
from harness.estimate.trace import Trace, trace
from harness.execution import Execution
from harness.models.spec import load_spec
from harness.networks.tuned import Tuned

GB = 10**9
TRACE = Trace(
    total_params=1000,
    trainable_params=110,
    weights_bytes=2000,
    gradients_bytes=200,
    trained_tensors=3,
    trained_elements=100,
    activations_bytes=500,
    forward_peak_bytes=700,
    backward_start_peak_bytes=900,
    backward_end_peak_bytes=600,
    flops=12345,
)


@pytest.fixture
def made_up(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[dict[str, Any]]]:
    """Every trace is :data:`TRACE`; what was asked for is noted."""
    asked: list[dict[str, Any]] = []

    def one(tuned: Tuned, batch_size: int, length: int, *, gradient_checkpointing: bool, loss: str) -> Trace:
        asked.append({"batch": batch_size, "length": length, "checkpointing": gradient_checkpointing, "loss": loss})
        return TRACE

    monkeypatch.setattr(estimates, "trace", one)
    yield asked


def test_the_states_are_two_moments_of_what_got_a_gradient_and_a_counter_for_each_tensor(
    made_up: list[dict[str, Any]],
) -> None:
    states = {dtype: estimate("tiny-llama", optimizer_dtype=dtype) for dtype in ("float32", "bfloat16", None)}
    assert states["float32"].optimizer_bytes == 2 * 4 * 100 + 3 * 4
    assert states["bfloat16"].optimizer_bytes == 2 * 2 * 100 + 3 * 4
    # In the format of the gradients, which take 200 bytes.
    assert states[None].optimizer_bytes == 2 * 200 + 3 * 4
    assert states["float32"].optimizer_dtype == "float32" and states[None].optimizer_dtype == "bfloat16"


@pytest.mark.parametrize(
    ("peaks", "highest"), [((700, 900, 600), 900), ((950, 900, 600), 950), ((700, 900, 999), 999), ((1, 2, 3), 3)]
)
def test_the_peak_is_weights_states_and_the_highest_moment(
    monkeypatch: pytest.MonkeyPatch, peaks: tuple[int, int, int], highest: int
) -> None:
    names = ("forward_peak_bytes", "backward_start_peak_bytes", "backward_end_peak_bytes")
    step = replace(TRACE, **dict(zip(names, peaks, strict=True)))
    monkeypatch.setattr(estimates, "trace", lambda *_, **__: step)
    answer = estimate("tiny-llama")
    assert answer.total_bytes == 2000 + 812 + highest
    # Beyond weights, gradients, states and activations; never below nothing.
    assert answer.temporary_bytes == max(highest - 200 - 500, 0)
    assert (answer.weights_bytes, answer.gradients_bytes, answer.activations_bytes) == (2000, 200, 500)
    assert (answer.total_params, answer.trainable_params, answer.flops) == (1000, 110, 12345)


def test_a_trace_is_asked_for_what_the_estimate_was(made_up: list[dict[str, Any]]) -> None:
    answer = estimate("tiny-llama", "lora", {"r": 4}, batch_size=3, length=17, gradient_checkpointing=True)
    assert made_up.pop() == {"batch": 3, "length": 17, "checkpointing": True, "loss": "plain"}
    estimate("tiny-llama", batch_size=5, length=17, execution=Execution(accumulation=2, loss="chunked"))
    assert made_up == [{"batch": 3, "length": 17, "checkpointing": False, "loss": "chunked"}]
    assert (answer.batch_size, answer.length, answer.gradient_checkpointing) == (3, 17, True)
    assert (answer.method, answer.method_args, answer.dtype) == ("lora", {"r": 4}, "bfloat16")


def test_memory_is_enough_up_to_the_last_byte(made_up: list[dict[str, Any]]) -> None:
    answer = estimate("tiny-llama")
    assert answer.total_bytes == 3712
    assert answer.fits(3712) and not answer.fits(3711)


def test_a_deep_model_lies_on_the_line_through_two_shallow_ones() -> None:
    zero = dict.fromkeys(vars(TRACE), 0)
    # Three fixed and two for each layer.
    two, four = Trace(**{**zero, "flops": 3 + 2 * 2}), Trace(**{**zero, "flops": 3 + 2 * 4})
    assert two.at(48, 2, four, 4) == Trace(**{**zero, "flops": 3 + 2 * 48})
    assert two.at(2, 2, four, 4) == two and two.at(4, 2, four, 4) == four


def fit(total: int) -> Fit:
    return Fit("lora", Namespace(fits=lambda size: total <= size))  # type: ignore[arg-type]


def test_the_smallest_card_that_holds_a_step() -> None:
    assert [fit(total * GB // 10).smallest_gb() for total in (1, 80, 81, 480, 800, 1410)] == [8, 8, 16, 48, 80, 141]
    assert fit(1411 * GB // 10).smallest_gb() is None
    assert fit(9 * GB).smallest_gb(sizes=(24, 12)) == 12
    assert Fit("lora", None, "no").smallest_gb() is None


@pytest.mark.parametrize(
    ("text", "size"),
    [("1MB", 10**6), ("2gb", 2 * 10**9), ("1TB", 10**12), ("1MiB", 2**20), ("1.5GiB", 3 * 2**29), ("1tib", 2**40)],
)
def test_units(text: str, size: int) -> None:
    assert parse_bytes(text) == size


def test_the_limit_is_the_lowest_of_the_groups_that_a_process_is_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = tmp_path / "outer" / "inner"
    inner.mkdir(parents=True)
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "outer" / "memory.max").write_text("3000\n")
    (inner / "memory.max").write_text("5000\n")
    own = tmp_path / "own"
    own.write_text("0::/outer/inner\n")
    assert sorted(limit._cgroup_limits(own, tmp_path)) == [3000, 5000]
    monkeypatch.setattr("harness.estimate.limit.psutil.virtual_memory", lambda: Namespace(total=4000))
    for sizes, place, size in (([3000, 5000], "container", 3000), ([5000], "machine", 4000), ([], "machine", 4000)):
        monkeypatch.setattr(limit, "_cgroup_limits", lambda sizes=sizes: iter(sizes))
        assert limit.limit_of("cpu") == limit.MemoryLimit(f"this {place}", size)


def test_a_plan_keeps_the_states_in_the_weights_format_and_leaves_out_what_the_method_does_not_take(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[Any] = []

    def one(*args: Any, **settings: Any) -> Namespace:
        asked.append((args, settings))
        return Namespace(
            total_bytes=77, flops=5, trainable_params=3, total_params=100, weights_bytes=365, dtype="float32"
        )

    monkeypatch.setattr(estimates, "estimate", one)
    setting = {"model": "m", "method": "lora", "method_args": '{"r": 4, "spectrum": 3}', "batch_size": 2, "length": 9}
    setting |= {"dtype": "float32", "labels": 5, "execution": '{"loss":"chunked"}', "has_step": True}
    assert worker.step_of(setting) == (77, 5, 3, 10)
    sizes: dict[str, Any] = {"batch_size": 2, "length": 9, "dtype": "float32", "optimizer_dtype": None, "labels": 5}
    sizes["execution"] = Execution(loss="chunked")
    assert asked == [(("m", "lora", {"r": 4}), sizes)]


def test_a_trial_is_skipped_with_all_candidates_for_its_parent_not_with_some() -> None:
    row: Any = Namespace(trial=Namespace(parents={"judge": ("a", "b"), "start": ("c",)}))
    assert planned._lost_parent(row, {"a", "d"}) is None
    assert planned._lost_parent(row, {"a", "b"}) == "its parent (judge, trial a or b) is skipped"
    assert planned._lost_parent(row, {"c"}) == "its parent (start, trial c) is skipped"


# --- a step that can be counted --------------------------------------------------------------------------------------


class Chain(nn.Module):
    """Two matrices with an activation that keeps its output between them; the loss is the mean."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(50, 8)
        self.first, self.second = nn.Linear(8, 16, bias=False), nn.Linear(16, 4, bias=False)

    def forward(self, input_ids: torch.Tensor, **_: torch.Tensor) -> Namespace:
        return Namespace(loss=self.second(torch.sigmoid(self.first(self.table(input_ids)))).mean())


def test_a_traced_step_of_two_matrices_by_hand() -> None:
    with torch.device("meta"):
        model = Chain()
    model.table.requires_grad_(False)
    tuned = Tuned(meta_base(load_spec("tiny-llama"), "float32"), model)
    step = trace(tuned, batch_size=2, length=3)
    tokens, own = 2 * 3, 4 * (8 * 16 + 16 * 4)
    assert (step.total_params, step.trainable_params) == (50 * 8 + 192, 192)
    assert (step.weights_bytes, step.gradients_bytes) == (4 * (50 * 8 + 192), own)
    assert (step.trained_tensors, step.trained_elements) == (2, 192)
    # The first matrix needs its input; the second needs the sigmoid's output, which the sigmoid needs too.
    assert step.activations_bytes == 4 * tokens * (8 + 16)
    # Of the first matrix: forward and the weight's gradient. Of the second: the input's gradient besides.
    assert step.flops == 2 * tokens * (2 * 8 * 16 + 3 * 16 * 4)
    # The input and both sides of the sigmoid are there together; then the side that nobody needs goes.
    assert step.forward_peak_bytes == 4 * tokens * (8 + 16 + 16)
    # At the end of the backward pass all gradients are there.
    assert step.backward_end_peak_bytes >= own


def test_a_frozen_matrix_gets_no_gradient_and_no_states() -> None:
    with torch.device("meta"):
        model = Chain()
    for frozen in (model.table, model.first):
        frozen.requires_grad_(False)
    step = trace(Tuned(meta_base(load_spec("tiny-llama"), "float32"), model), batch_size=1, length=3)
    assert (step.trained_tensors, step.trained_elements, step.gradients_bytes) == (1, 64, 4 * 64)
    assert step.activations_bytes == 4 * 3 * 16
    assert step.flops == 2 * 3 * (8 * 16 + 2 * 16 * 4)


def test_packed_weights_take_half_a_byte_an_element_and_a_scale_for_each_block() -> None:
    base = meta_base(load_spec("tiny-llama"), "float32")
    four_bits = {"bnb_4bit_use_double_quant": True, "bnb_4bit_quant_type": "nf4"}

    def state(double: bool) -> Any:
        from transformers import BitsAndBytesConfig

        given = {**four_bits, "bnb_4bit_use_double_quant": double}
        model = base.build(quantization_config=BitsAndBytesConfig(load_in_4bit=True, **given))
        return model.model.layers[0].mlp.up_proj.weight

    nested, plain = state(double=True), state(double=False)
    elements = torch.Size(nested.quant_state.shape).numel()
    assert nested.numel() == elements // 2 and nested.dtype == torch.uint8
    assert plain.quant_state.absmax.numel() == elements / 64 and plain.quant_state.absmax.dtype == torch.float32
    assert nested.quant_state.absmax.numel() == elements / 64 and nested.quant_state.absmax.dtype == torch.uint8
    assert nested.quant_state.state2.absmax.numel() == -(-elements // (64 * 256))
    assert plain.quant_state.state2 is None
    assert isinstance(estimate("tiny-llama", "qlora", length=8), Estimate)
