"""Memory, energy, FLOPs and peaks of a machine whose counters the tests write: every number by hand."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace as Namespace
from typing import Any

import pytest
import torch
from helpers.fake_clock import Clock
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from harness.measure import energy as energies
from harness.measure import environment, memory, nvml
from harness.measure import roofline as rooflines
from harness.measure.flops import FlopCounter, flops_of
from harness.measure.memory import Peak, peak_memory, saved_activations, weights_bytes

CPU, GPU = torch.device("cpu"), torch.device("cuda")


# --- bytes -----------------------------------------------------------------------------------------------------------


def test_a_packed_weight_counts_both_levels_of_its_scales() -> None:
    model = nn.Linear(8, 4, bias=False)
    second = Namespace(absmax=torch.zeros(2), code=torch.zeros(256), offset=None)
    model.weight.quant_state = Namespace(
        absmax=torch.zeros(3, dtype=torch.uint8), code=torch.zeros(16), offset=torch.zeros(()), state2=second
    )
    assert weights_bytes(model) == 4 * 32 + 3 + 4 * 16 + 4 + 4 * 2 + 4 * 256


def test_buffers_are_weights_too() -> None:
    model = nn.BatchNorm1d(10)
    # Scale and shift; running mean and variance; the count of batches, in 64 bits.
    assert weights_bytes(model) == 4 * (10 + 10) + 4 * (10 + 10) + 8


def test_states_of_every_tensor_are_counted_and_no_plain_numbers() -> None:
    first, second = (nn.Parameter(torch.ones(size)) for size in (10, 3))
    optimizer = torch.optim.SGD([first, second], momentum=0.9)
    (first.sum() + second.sum()).backward()
    assert memory.optimizer_bytes(optimizer) == 0
    optimizer.step()
    optimizer.state[first]["steps"] = 7
    assert memory.optimizer_bytes(optimizer) == 4 * (10 + 3)


class Scaled(nn.Module):
    """Multiplies by a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("scale", torch.full((8,), 2.0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        product: torch.Tensor = x * self.scale
        return product


def test_a_buffer_that_backward_needs_is_no_activation() -> None:
    model = nn.Sequential(Scaled(), nn.Linear(8, 4))
    x = torch.ones(3, 8, requires_grad=True)
    with saved_activations(model) as saved:
        out = model(x)
    # The product of the second layer needs its input; that of the buffer needs the buffer.
    assert out.requires_grad and saved.bytes == 4 * 3 * 8


def test_the_peak_of_a_process_is_the_kernels_high_water_mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_PROC", tmp_path)
    (tmp_path / "status").write_text("Name:\tpython\nVmPeak:\t  900 kB\nVmHWM:\t  300 kB\nVmRSS:\t  200 kB\n")
    with peak_memory(CPU) as peak:
        assert (tmp_path / "clear_refs").read_text() == "5"
    assert peak.bytes == 300 * 1024
    (tmp_path / "status").unlink()
    monkeypatch.setattr(
        "harness.measure.memory.psutil.Process", lambda: Namespace(memory_info=lambda: Namespace(rss=5))
    )
    assert memory.process_peak_bytes() == 5
    windows = Namespace(memory_info=lambda: Namespace(rss=5, peak_wset=9))
    monkeypatch.setattr("harness.measure.memory.psutil.Process", lambda: windows)
    assert memory.process_peak_bytes() == 9


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[int]]:
    """An allocator that holds 70 bytes (90 reserved) now and held 500 (600) at most; 30 (40) before it."""
    state = {"peak": [30, 40], "calls": []}

    def reset(_device: Any) -> None:
        state["peak"] = [500, 600]

    for name, act in {
        "synchronize": lambda _device: state["calls"].append(1),
        "reset_peak_memory_stats": reset,
        "max_memory_allocated": lambda _device: state["peak"][0],
        "max_memory_reserved": lambda _device: state["peak"][1],
        "memory_allocated": lambda _device: 70,
        "memory_reserved": lambda _device: 90,
    }.items():
        monkeypatch.setattr(torch.cuda, name, act)
    monkeypatch.setattr(memory, "process_bytes", lambda _device: 800)
    return state


def test_the_peak_of_a_device_is_the_highest_of_the_block_not_what_is_there_at_its_end(
    cuda: dict[str, list[int]],
) -> None:
    with peak_memory(GPU) as peak:
        assert peak == Peak()
    assert peak == Peak(bytes=500, reserved_bytes=600, process_bytes=800)


def test_an_accelerator_is_waited_for_and_a_processor_is_not(cuda: dict[str, list[int]]) -> None:
    environment.synchronize(CPU)
    assert cuda["calls"] == []
    environment.synchronize(GPU)
    assert cuda["calls"] == [1]
    assert environment.accelerator(CPU) is None


# --- what the driver knows -------------------------------------------------------------------------------------------


class NVMLError(Exception):
    """As the library's."""


class Driver:
    """Counts 250 millijoules from reading to reading."""

    NVMLError = NVMLError

    def __init__(self) -> None:
        self.millijoules = 1000
        self.asked: list[str] = []
        self.running = [(1, 111), (os.getpid(), 222), (os.getpid() + 1, 333)]

    def nvmlInit(self) -> None:
        self.asked.append("init")

    def nvmlDeviceGetHandleByUUID(self, name: str) -> str:
        self.asked.append(name)
        return "handle"

    def nvmlDeviceGetTotalEnergyConsumption(self, _handle: str) -> int:
        self.millijoules += 250
        return self.millijoules

    def nvmlDeviceGetComputeRunningProcesses(self, _handle: str) -> list[Namespace]:
        return [Namespace(pid=pid, usedGpuMemory=size) for pid, size in self.running]


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Driver:
    driver = Driver()
    monkeypatch.setattr(nvml, "importlib", Namespace(import_module=lambda _name: driver))
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _device: Namespace(uuid="12-34"))
    monkeypatch.setattr(energies, "synchronize", lambda _device: None)
    return driver


def test_the_energy_of_a_gpu_is_the_difference_of_its_counter_in_joules(driver: Driver) -> None:
    with energies.energy(GPU) as used:
        driver.millijoules += 4750
    assert used.joules == 5.0 and used.reason is None
    assert driver.asked == ["init", "GPU-12-34"]


def test_the_work_before_and_in_the_block_is_waited_for(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    # What is queued draws its power when it runs.
    queued = [3000]

    def wait(_device: torch.device) -> None:
        driver.millijoules += sum(queued)
        queued.clear()

    monkeypatch.setattr(energies, "synchronize", wait)
    with energies.energy(GPU) as used:
        queued.append(1750)
    assert used.joules == 2.0


def test_a_process_is_asked_its_own_memory(driver: Driver) -> None:
    assert nvml.process_bytes(GPU) == 222
    driver.running = [(1, 111)]
    assert nvml.process_bytes(GPU) is None


def test_the_packages_of_a_machine_are_added_and_each_begins_again_by_itself(tmp_path: Path) -> None:
    def counters(*values: int) -> None:
        for number, value in enumerate(values):
            zone = tmp_path / f"intel-rapl:{number}"
            zone.mkdir(exist_ok=True)
            (zone / "max_energy_range_uj").write_text("9999999\n")
            (zone / "energy_uj").write_text(f"{value}\n")

    counters(1_000_000, 9_500_000)
    with energies.energy(CPU, tmp_path) as used:
        counters(3_000_000, 500_000)
    # 2 J of the first; the second went from 9.5 J past 10 J to 0.5 J.
    assert used.joules == 3.0


# --- FLOPs -----------------------------------------------------------------------------------------------------------


def test_a_product_with_a_packed_weight_counts_as_that_with_a_plain_one() -> None:
    operation = Namespace(_overloadpacket="bitsandbytes.gemm_4bit")
    given = (torch.zeros(3, 4, 10), torch.zeros(25, 1, dtype=torch.uint8), (5, 10))
    assert flops_of(operation, given, {}, torch.zeros(3, 4, 5)) == 2 * (3 * 4) * 10 * 5


def test_of_a_frozen_layer_two_thirds_of_the_products_are_left() -> None:
    model = nn.Sequential(nn.Linear(10, 10, bias=False), nn.Linear(10, 10, bias=False), nn.Linear(10, 10, bias=False))
    product = 2 * 3 * 10 * 10

    def flops() -> int:
        with FlopCounter() as counter:
            model(torch.ones(3, 10, requires_grad=True)).sum().backward()
        return int(counter.flops)

    assert flops() == 3 * 3 * product
    model[1].requires_grad_(False)
    assert flops() == (3 + 2 + 3) * product


def test_additions_are_no_flops() -> None:
    with FlopCounter() as counter:
        torch.ones(3, 3) + torch.ones(3, 3)
    assert counter.flops == 0


# --- peaks of the machine --------------------------------------------------------------------------------------------


class Operands(TorchDispatchMode):
    """What matrix products multiply and copies copy."""

    def __init__(self) -> None:
        super().__init__()
        self.factors: list[torch.Tensor] = []
        self.copied: list[torch.Tensor] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.mm.out:
            self.factors += [factor.clone() for factor in args[:2]]
        if func is torch.ops.aten.copy_.default:
            self.copied.append(args[1].clone())
        return func(*args, **(kwargs or {}))


@pytest.fixture
def probe(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """Products up to 512 and copies of 4 KiB, each of which takes the next of these seconds."""
    monkeypatch.setattr(rooflines, "_LARGEST", {"cpu": 512})
    monkeypatch.setattr(rooflines, "_COPY_BYTES", {"cpu": 4096})
    seconds: list[float] = []

    def best(act: Any, device: torch.device, budget_s: float) -> float:
        act()
        return seconds.pop(0)

    monkeypatch.setattr(rooflines, "_best_s", best)
    yield seconds
    assert seconds == []


def test_peaks_are_of_random_numbers_and_nobody_elses_next_draw_changes(probe: list[float]) -> None:
    probe += [1e-9, 1e-9, 1.0]
    torch.manual_seed(5)
    before = torch.get_rng_state()
    with Operands() as seen:
        rooflines.measure_roofline(CPU, torch.float32, probe_s=60.0)
    assert torch.equal(torch.get_rng_state(), before)
    assert [tuple(factor.shape) for factor in seen.factors] == [(256, 256)] * 2 + [(512, 512)] * 2
    for factor in seen.factors:
        # Of 65,536 normal numbers or more the mean is within 0.02 of 0 and the deviation of 1, by five standard errors.
        assert abs(float(factor.mean())) < 0.02 and abs(float(factor.std()) - 1) < 0.02
        assert len(factor.unique()) > 0.9 * factor.numel()
    assert not torch.equal(*seen.factors[:2])
    (source,) = seen.copied
    assert source.nbytes == 4096
    # Of 32,768 bits, half are set; the sign, one of 64, never is.
    bits = sum(byte.bit_count() for byte in source.view(torch.uint8).tolist())
    assert abs(bits / 32768 - 63 / 128) < 0.02


def test_the_fastest_product_counts_and_a_copy_reads_and_writes(probe: list[float]) -> None:
    probe += [2e-3, 32e-3, 0.5]
    peaks = rooflines.measure_roofline(CPU, torch.float32, probe_s=60.0)
    # The larger product has eight times the operations, and took sixteen times as long.
    assert peaks.flops_per_s == pytest.approx(2 * 256**3 / 2e-3)
    assert peaks.bytes_per_s == 2 * 4096 / 0.5
    assert peaks.dtype == "float32"


def test_no_product_is_tried_for_which_there_is_no_time(probe: list[float]) -> None:
    probe += [1.0, 0.5]
    assert rooflines.measure_roofline(CPU, torch.float32, probe_s=2.0).flops_per_s == 2 * 256**3


def test_the_share_of_the_processor_is_per_thread(probe: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    probe += [1e-9, 1e-9, 1.0]
    clocks = {"perf_counter": iter([0.0, *[1.0] * 5, 10.0]), "process_time": iter([3.0, 18.0])}
    monkeypatch.setattr(rooflines, "time", Namespace(**{k: v.__next__ for k, v in clocks.items()}))
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    peaks = rooflines.measure_roofline(CPU, torch.float32, probe_s=60.0)
    # 15 s of processors in 10 s on two threads.
    assert peaks.processor_share == pytest.approx(0.75)
    assert not peaks.undisturbed


def test_the_fastest_call_after_one_to_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    clock.put_into(rooflines, monkeypatch)
    seconds = iter([0.5, 3.0, 2.0, 4.0])
    # The first waits for nothing: its half second belongs to nobody.
    assert rooflines._best_s(lambda: clock.work(next(seconds)), CPU, budget_s=6.0) == 2.0
    assert rooflines._best_s(lambda: clock.work(9.0), CPU, budget_s=0.0) == 9.0


def test_every_format_and_number_of_threads_has_its_own_peaks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNEBENCH_CACHE", str(tmp_path))
    peaks = {torch.float32: 2e9, torch.bfloat16: 4e9}

    def measured(device: torch.device, dtype: torch.dtype) -> rooflines.Roofline:
        return rooflines.Roofline("toy", str(dtype), peaks[dtype] * torch.get_num_threads(), 1e9, 1.0)

    monkeypatch.setattr(rooflines, "measure_roofline", measured)
    for threads in (1, 3):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        for dtype, peak in peaks.items():
            for _ in range(2):
                assert rooflines.roofline(CPU, dtype).flops_per_s == threads * peak
