"""Known answers of the measuring tools, on tensors whose sizes can be counted by hand."""

from __future__ import annotations

import gc
import math
import time
import weakref
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch._higher_order_ops.flex_attention import flex_attention_backward
from torch.nn.attention.flex_attention import flex_attention

from harness.measure import roofline as rooflines
from harness.measure.energy import energy
from harness.measure.flops import FlopCounter, flops_of
from harness.measure.memory import (
    gradients_bytes,
    optimizer_bytes,
    peak_memory,
    saved_activations,
    storage_bytes,
    weights_bytes,
)
from harness.measure.roofline import Roofline, measure_roofline
from harness.measure.training import Step, speed, utilisation

CPU = torch.device("cpu")


def test_weights_gradients_and_states_are_the_tensors_bytes() -> None:
    model = nn.Linear(10, 5)
    assert weights_bytes(model) == 4 * 55
    assert gradients_bytes(model) == 0
    model(torch.ones(1, 10)).sum().backward()
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    optimizer.step()
    assert gradients_bytes(model) == 4 * 55
    # Two moments and, for each of the two tensors, a step counter.
    assert optimizer_bytes(optimizer) == 2 * 4 * 55 + 2 * 4


def test_what_shares_a_storage_counts_once() -> None:
    whole = torch.zeros(100)
    assert storage_bytes([whole, whole[:10], whole.view(10, 10), None]) == 400
    assert storage_bytes([whole, whole.clone()]) == 800


def test_tensors_without_data_count_what_they_would_take() -> None:
    with torch.device("meta"):
        model = nn.Sequential(nn.Linear(1000, 1000, bias=False), nn.Linear(1000, 1000, bias=False))
    assert weights_bytes(model) == 2 * 4 * 10**6
    model[1].weight = model[0].weight
    assert weights_bytes(model) == 4 * 10**6


def test_activations_are_what_backward_needs_and_nothing_that_is_there_anyway() -> None:
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))
    with saved_activations(model) as saved:
        output = model(torch.ones(3, 8))
    # The input, and ReLU's output, which the second layer needs too; the weights are left out.
    assert saved.bytes == 4 * (3 * 8 + 3 * 16)
    del output
    assert saved.bytes == 0


def test_frozen_layers_keep_less() -> None:
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))
    model[0].requires_grad_(False)
    with saved_activations(model) as saved:
        output = model(torch.ones(3, 8))
    assert output.requires_grad and saved.bytes == 4 * 3 * 16


def test_counting_activations_keeps_none_of_them() -> None:
    model = nn.Sequential(nn.Linear(8, 16), nn.Sigmoid())  # saves its own output
    with saved_activations(model) as saved:
        output = model(torch.ones(3, 8))
    assert saved.bytes
    gone = weakref.ref(output.untyped_storage())
    del output
    gc.collect()
    assert gone() is None, "the probe holds the graph that it looked at"


def test_gradients_are_the_same_under_the_count() -> None:
    model = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 4))
    model(torch.ones(3, 8)).sum().backward()
    plain = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    with saved_activations(model):
        loss = model(torch.ones(3, 8)).sum()
    loss.backward()
    assert all(torch.equal(p.grad, g) for p, g in zip(model.parameters(), plain, strict=True))


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux")
def test_peak_of_the_process_sees_what_was_freed_before_the_end() -> None:
    with peak_memory(CPU) as idle:
        pass
    with peak_memory(CPU) as peak:
        torch.ones(25 * 2**20)  # 100 MiB
    assert idle.bytes is not None and peak.bytes is not None
    assert 95 * 2**20 < peak.bytes - idle.bytes < 115 * 2**20
    assert peak.reserved_bytes is None and peak.process_bytes is None


def test_flops_of_a_product_and_of_its_gradients() -> None:
    a, b = torch.ones(3, 5, requires_grad=True), torch.ones(5, 7, requires_grad=True)
    with FlopCounter() as counter:
        (a @ b).sum().backward()
    assert counter.flops == 3 * (2 * 3 * 5 * 7)


def test_flops_of_attention() -> None:
    q, k, v = (torch.ones(2, 4, 6, 8, requires_grad=True) for _ in range(3))
    with FlopCounter() as counter:
        out = nn.functional.scaled_dot_product_attention(q, k, v)
    product = 2 * (2 * 4) * 6 * 6 * 8
    assert counter.flops == 2 * product  # QK^T, and with V
    with FlopCounter() as counter:
        out.sum().backward()
    assert counter.flops == 5 * product  # the scores again; gradients of V, of the probabilities, of Q and of K


@pytest.mark.parametrize(
    "kernel", ["flash_attention_for_cpu", "flash_attention", "efficient_attention", "cudnn_attention"]
)
def test_flops_of_attention_with_grouped_heads_are_those_of_as_many_as_there_are_queries(kernel: str) -> None:
    # Of the kernels of GPUs there are shapes alone.
    q, k = torch.empty(2, 4, 6, 8, device="meta"), torch.empty(2, 2, 6, 8, device="meta")
    product = 2 * (2 * 4) * 6 * 6 * 8
    forward = getattr(torch.ops.aten, f"_scaled_dot_product_{kernel}").default
    backward = getattr(torch.ops.aten, f"_scaled_dot_product_{kernel}_backward").default
    assert flops_of(forward, (q, k, k), {}, q) == 2 * product
    assert flops_of(backward, (q, q, k, k), {}, (q, k, k)) == 5 * product


def test_flex_attention_counts_as_any_other() -> None:
    q = torch.ones(2, 4, 6, 8)
    with FlopCounter() as counter:
        flex_attention(q, q, q)
    product = 2 * (2 * 4) * 6 * 6 * 8
    assert (counter.flops, counter.attention_forward_flops) == (2 * product, 2 * product)
    assert counter.attention == {"flex_attention": 1} and counter.pairs == 2 * 6 * 6
    # A CPU computes no backward pass of it. Its arguments begin with the inputs, the output, its sums, its gradient.
    assert flops_of(flex_attention_backward, (q, q, q, q, q[..., 0], q), {}, (q, q, q)) == 5 * product


def test_what_is_compiled_is_counted_like_the_rest() -> None:
    """It runs as it is written while it is counted, and is compiled again behind that."""
    compilations: list[str] = []

    def backend(graph: torch.fx.GraphModule, _inputs: object) -> torch.fx.GraphModule:
        compilations.append("compiled")
        return graph

    product = torch.compile(lambda a: a @ a, backend=backend)
    with FlopCounter() as counter:
        product(torch.ones(3, 3))
    assert (counter.flops, compilations) == (2 * 3**3, [])
    product(torch.ones(3, 3))
    assert compilations == ["compiled"]


def test_flops_of_a_sum_with_a_product_in_another_format() -> None:
    a, b = torch.empty(3, 5, device="meta"), torch.empty(5, 7, device="meta")
    given = (a @ b, a, b, torch.float32)
    assert flops_of(torch.ops.aten.addmm.dtype, given, {}, a @ b) == 2 * 3 * 5 * 7
    batched = tuple(x if isinstance(x, torch.dtype) else x.expand(4, *x.shape) for x in given)
    assert flops_of(torch.ops.aten.baddbmm.dtype, batched, {}, batched[0]) == 4 * 2 * 3 * 5 * 7


@given(
    st.lists(st.floats(0.01, 10.0), min_size=1, max_size=8),
    st.integers(1, 10**6),
    st.floats(1.0, 1e9),
    st.floats(1e9, 1e15),
)
def test_utilisation_is_flops_over_what_the_peak_could_do(
    seconds: list[float], slots: int, flops_per_slot: float, peak: float
) -> None:
    steps = [Step(n, s, slots, 1.0, slots=slots) for n, s in enumerate([99.0, 99.0, *seconds], 1)]
    found = utilisation(steps, flops_per_slot, peak)
    assert found is not None
    assert math.isclose(found * peak * sum(seconds), flops_per_slot * slots * len(seconds), rel_tol=1e-9)


def test_warm_up_steps_count_in_no_speed() -> None:
    steps = [Step(n, s, 10, 1.0, slots=20) for n, s in enumerate([50.0, 50.0, 1.0, 3.0], 1)]
    found = speed(steps)
    assert found is not None and found.step_s_median == 2.0 and found.tokens_per_s == 5.0
    assert speed(steps[:2]) is None and utilisation(steps[:2], 1.0, 1.0) is None


def counter_folder(root: Path, value: int, largest: int = 999_999) -> Path:
    zone = root / "intel-rapl:0"
    part = root / "intel-rapl:0:0"
    for folder in (zone, part):
        folder.mkdir(exist_ok=True)
        (folder / "max_energy_range_uj").write_text(f"{largest}\n")
        (folder / "energy_uj").write_text(f"{value}\n")
    return root


def test_energy_is_the_difference_of_the_packages_counter(tmp_path: Path) -> None:
    with energy(CPU, counter_folder(tmp_path, 100_000)) as used:
        counter_folder(tmp_path, 350_000)
    assert used.joules == 0.25 and used.reason is None


def test_a_counter_that_is_full_begins_again(tmp_path: Path) -> None:
    with energy(CPU, counter_folder(tmp_path, 900_000)) as used:
        counter_folder(tmp_path, 100_000)
    assert used.joules == pytest.approx(0.2)


def test_energy_without_a_counter_is_null_with_a_reason(tmp_path: Path) -> None:
    with energy(CPU, tmp_path) as used:
        pass
    assert used.joules is None and used.reason == "no RAPL counter on this machine"
    (counter_folder(tmp_path, 1) / "intel-rapl:0" / "energy_uj").write_text("not a number")
    with energy(CPU, tmp_path) as used:
        pass
    assert used.joules is None and "energy_uj" in (used.reason or "")


def test_roofline_is_measured_once_a_day_and_only_kept_undisturbed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNEBENCH_CACHE", str(tmp_path))
    shares = [0.5, 1.0, 1.0]
    calls: list[float] = []

    def probe(device: torch.device, dtype: torch.dtype) -> Roofline:
        calls.append(shares[len(calls)])
        return Roofline("toy", "float32", 1e9 * len(calls), 1e9, calls[-1])

    monkeypatch.setattr(rooflines, "measure_roofline", probe)
    found = [rooflines.roofline(CPU, torch.float32).flops_per_s for _ in range(4)]
    assert found == [1e9, 2e9, 2e9, 2e9]
    next((tmp_path / "roofline").iterdir()).write_text("{ broken")
    assert rooflines.roofline(CPU, torch.float32).flops_per_s == 3e9


def test_roofline_probe_gives_rates() -> None:
    found = measure_roofline(CPU, torch.float32, probe_s=0.05)
    assert found.flops_per_s > 1e8 and found.bytes_per_s > 1e7
    assert 0 < found.processor_share <= 1


@pytest.mark.parametrize(("kind", "share"), [("cuda", 1.0), ("cpu", 0.0)])
def test_a_thread_that_sleeps_while_a_gpu_computes_is_no_disturbance(
    kind: str, share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(rooflines._LARGEST, kind, 256)
    monkeypatch.setattr(time, "process_time", lambda: 0.0)
    cpu = torch.device("cpu")
    flops, got = rooflines._products(kind, cpu, torch.float32, 0.01, torch.Generator(cpu).manual_seed(0))
    assert flops > 0 and got == share
