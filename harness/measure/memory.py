"""Memory: peaks of the process or the device, and bytes by category, counted from the tensors themselves."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import weakref
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import torch
from torch import nn

from harness.measure.nvml import process_bytes

_PROC = Path("/proc/self")


@dataclass
class Peak:
    """Filled when the :func:`peak_memory` block ends."""

    bytes: int | None = None
    """Allocated on the device, or resident in the process on CPU; None while the block runs."""
    reserved_bytes: int | None = None
    """Held by PyTorch's allocator on the device, fragments included; None on CPU."""
    process_bytes: int | None = None
    """What the driver counts for this process when the block ends (it never shrinks within one); None on CPU."""


def reset_process_peak() -> None:
    """Begin a new peak of the process: give back what the allocator holds, then reset the high-water mark."""
    # What an earlier phase freed may still be held by the allocator; it is not this phase's.
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    # 5 resets the kernel's high-water mark of resident memory (proc(5)).
    with contextlib.suppress(OSError):
        (_PROC / "clear_refs").write_text("5")


def process_peak_bytes() -> int:
    """High-water mark of the process's resident memory since the last reset, in bytes.

    Exact on Linux; elsewhere the highest since the process began (Windows) or the present one.
    """
    status = _PROC / "status"
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    info = psutil.Process().memory_info()
    return int(getattr(info, "peak_wset", info.rss))


@contextlib.contextmanager
def peak_memory(device: torch.device) -> Iterator[Peak]:
    """Measure the peak of the block: ``torch.cuda.max_memory_allocated`` on CUDA, resident process memory on CPU."""
    peak = Peak()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
    else:
        reset_process_peak()
    try:
        yield peak
    finally:
        if device.type == "cuda":
            peak.bytes = int(torch.cuda.max_memory_allocated(device))
            peak.reserved_bytes = int(torch.cuda.max_memory_reserved(device))
            peak.process_bytes = process_bytes(device)
        else:
            peak.bytes = process_peak_bytes()


def storage_key(storage: torch.UntypedStorage) -> int:
    """Identity of a storage while it lives; unlike its address, it tells tensors without data apart (meta, fake)."""
    return int(storage._cdata)


def storage_bytes(tensors: Iterable[torch.Tensor | None]) -> int:
    """Bytes of the distinct storages behind ``tensors``: what is shared or tied counts once.

    A tensor on the meta device counts what it would take, a sharded one this process's part.
    """
    parts = [t.to_local() if hasattr(t, "to_local") else t for t in tensors if t is not None]
    storages = [part.untyped_storage() for part in parts]
    return sum({storage_key(storage): storage.nbytes() for storage in storages}.values())


def _with_quantisation_state(parameter: torch.Tensor) -> Iterator[torch.Tensor]:
    """The tensor and, for a bitsandbytes weight, its scales: absmax, code book and the nested second level."""
    yield parameter
    state = getattr(parameter, "quant_state", None)
    while state is not None:
        for name in ("absmax", "code", "offset"):
            value = getattr(state, name, None)
            if isinstance(value, torch.Tensor):
                yield value
        state = getattr(state, "state2", None)


def weights_bytes(model: nn.Module) -> int:
    """Bytes of parameters and buffers, quantisation scales included.

    bitsandbytes repacks 4-bit weights at the first evaluation on some processors and drops the nested scales; count
    before that.
    """
    tensors = [t for p in model.parameters() for t in _with_quantisation_state(p)]
    return storage_bytes([*tensors, *model.buffers()])


def gradients_bytes(model: nn.Module) -> int:
    """Bytes of the gradients that exist now."""
    return storage_bytes(p.grad for p in model.parameters())


def optimizer_bytes(optimizer: torch.optim.Optimizer) -> int:
    """Bytes of the optimiser's states."""
    return storage_bytes(
        value for state in optimizer.state.values() for value in state.values() if isinstance(value, torch.Tensor)
    )


class _Kept:
    """A tensor in autograd's keeping; gone when the graph no longer needs it."""

    __slots__ = ("__weakref__", "tensor")

    def __init__(self, tensor: torch.Tensor) -> None:
        self.tensor = tensor


@dataclass
class SavedTensors:
    """What autograd keeps between a forward and its backward pass; see :func:`saved_activations`."""

    _kept: list[weakref.ref[_Kept]] = field(default_factory=list)

    @property
    def bytes(self) -> int:
        """Bytes of the distinct storages kept now: while the loss is alive, what its backward pass needs."""
        alive = [activation.tensor.untyped_storage() for ref in self._kept if (activation := ref()) is not None]
        return sum({storage_key(storage): storage.nbytes() for storage in alive}.values())


@contextlib.contextmanager
def saved_activations(model: nn.Module) -> Iterator[SavedTensors]:
    """Count the tensors that a forward pass keeps for backward: each storage once, parameters and buffers left out.

    A graph that ends before the loss, such as that of DoRA's detached norm, keeps nothing. Exact on any device and with
    any method. Its bookkeeping costs time: never inside a timed region.
    """
    own = {storage_key(t.untyped_storage()) for p in model.parameters() for t in _with_quantisation_state(p)}
    own |= {storage_key(b.untyped_storage()) for b in model.buffers()}
    saved = SavedTensors()

    def pack(tensor: torch.Tensor) -> _Kept:
        # Detached: the tensor itself would hold its own graph, a cycle that only a backward pass breaks.
        activation = _Kept(tensor.detach())
        if storage_key(tensor.untyped_storage()) not in own:
            saved._kept.append(weakref.ref(activation))
        return activation

    def unpack(activation: _Kept) -> torch.Tensor:
        return activation.tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
        yield saved
