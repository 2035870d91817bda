"""One training step on fake tensors: real modules and real autograd, shapes instead of numbers.

PyTorch runs the step operation by operation and allocates nothing. Watching its storages come and go gives what is
kept for backward, the highest amount alive at any moment, and the floating-point operations.
"""

from __future__ import annotations

import contextlib
import copy
import weakref
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from typing import Any
from unittest import mock

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from harness.estimate.states import Trained, count
from harness.measure.flops import flops_of
from harness.measure.memory import gradients_bytes, saved_activations, storage_key, weights_bytes
from harness.networks.tuned import Tuned
from harness.training.head_loss import HEAD_LOSSES
from harness.training.token_loss import token_loss


@dataclass(frozen=True)
class Trace:
    """What one forward and backward pass takes. Every number is linear in the number of equal layers."""

    total_params: int
    trainable_params: int
    weights_bytes: int
    gradients_bytes: int
    trained_tensors: int
    """Tensors that got a gradient: an optimiser keeps states for these."""
    trained_elements: int
    activations_bytes: int
    """Kept between forward and backward."""
    forward_peak_bytes: int
    """Highest amount alive during the forward pass, weights and optimiser states left out; likewise the next two."""
    backward_start_peak_bytes: int
    """The same in the first half of the backward pass, where most activations are still there …"""
    backward_end_peak_bytes: int
    """… and in its second half, where most gradients are."""
    flops: int
    trained_in_8_bits: int = 0
    """Of the trained elements, those that an 8-bit optimiser keeps in 8 bits …"""
    trained_blocks: int = 0
    """… its scales for one state of them …"""
    trained_factored: int = 0
    """… and the numbers that Adafactor keeps."""

    @property
    def trained(self) -> Trained:
        """What an optimiser keeps states for."""
        numbers = (self.trained_in_8_bits, self.trained_blocks, self.trained_factored)
        return Trained(self.trained_tensors, self.trained_elements, *numbers)

    def at(self, layers: int, own: int, other: Trace, others: int) -> Trace:
        """The line through this trace of ``own`` layers and ``other`` of ``others`` layers, at ``layers``."""

        def along(name: str) -> int:
            here, there = getattr(self, name), getattr(other, name)
            return int(here + (there - here) * (layers - own) // (others - own))

        return Trace(**{f.name: along(f.name) for f in fields(self)})


@dataclass
class _MemoryAndFlopsWatch(TorchDispatchMode):
    """Sees every operation: counts its FLOPs, and the bytes alive after it."""

    ignored: set[int] = field(default_factory=set)
    """Keys of the storages of weights and buffers."""
    flops: int = 0
    live: list[int] = field(default_factory=lambda: [0])
    """Bytes alive after each operation."""

    def __post_init__(self) -> None:
        super().__init__()
        self._now = 0
        self._alive: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default and args[0].dtype == torch.bool:
            # "Is every token real?": the batch that is traced has no padding.
            return True
        if func is torch.ops.prim.device.default:  # most of what is asked in a step, and the way through is long
            self.live.append(self._now)
            return args[0].fake_device
        out = func(*args, **(kwargs or {}))
        self.flops += flops_of(func, args, kwargs or {}, out)
        for tensor in out if isinstance(out, tuple | list) else (out,):
            if isinstance(tensor, torch.Tensor):
                self._born(tensor.untyped_storage())
        self.live.append(self._now)
        return out

    def _born(self, storage: torch.UntypedStorage) -> None:
        key = storage_key(storage)
        if key not in self._alive and key not in self.ignored:
            self._alive.add(key)
            self._now += storage.nbytes()
            weakref.finalize(storage, self._died, key, storage.nbytes())

    def _died(self, key: int, size: int) -> None:
        self._alive.discard(key)
        self._now -= size


def trace(
    tuned: Tuned, batch_size: int, length: int, *, gradient_checkpointing: bool = False, loss: str = "plain"
) -> Trace:
    """Trace a training step of ``tuned``, a method applied to a base on the meta device.

    The batch is ``batch_size`` texts of ``length`` tokens without padding, with loss on every token. The network's
    tensors are replaced by fake ones: it is of no other use afterwards. ``loss`` is that of an execution.
    """
    model = tuned.model
    weights, total, trainable = weights_bytes(model), tuned.total_params, tuned.trainable_params
    if gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False, "preserve_rng_state": False})
        model.config.use_cache = False
    with FakeTensorMode(allow_non_fake_inputs=True), _as_in_a_run():
        _make_fake(model)
        ids = torch.zeros(batch_size, length, dtype=torch.long)
        of_head = torch.zeros(batch_size, dtype=torch.float32 if tuned.base.learns_number else torch.long)
        labels = of_head if tuned.base.has_head else ids
        batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}
        if tuned.base.reads_apart:
            answers = ids[:, : max(length // 2, 1)].contiguous()
            batch |= {"decoder_input_ids": answers, "labels": answers}
        model.train()
        own = {storage_key(t.untyped_storage()) for t in (*model.parameters(), *model.buffers())}
        with _recurrent_inputs(model) as recurrent, _MemoryAndFlopsWatch(own) as watch:
            with saved_activations(model) as saved:
                value = _loss(model, batch, loss)
            forward, activations = len(watch.live), saved.bytes
            del saved
            value.backward()
    unseen = sum(_unseen_bytes(module, shape) for module, shape in recurrent)
    backward = watch.live[forward - 1 :]
    half = len(backward) // 2
    trained = count(model)
    return Trace(
        total_params=total,
        trainable_params=trainable,
        weights_bytes=weights,
        gradients_bytes=gradients_bytes(model),
        trained_tensors=trained.tensors,
        trained_elements=trained.elements,
        activations_bytes=activations + unseen,
        forward_peak_bytes=max(watch.live[:forward]) + unseen,
        backward_start_peak_bytes=max(backward[: half + 1]) + unseen,
        backward_end_peak_bytes=max(backward[half:]),
        flops=watch.flops,
        trained_in_8_bits=trained.in_8_bits,
        trained_blocks=trained.blocks,
        trained_factored=trained.factored,
    )


def _loss(model: nn.Module, batch: dict[str, torch.Tensor], loss: str) -> torch.Tensor:
    """The loss of every token but the first of a row; of a head, that of the network."""
    if loss == "plain" or batch["labels"].dim() == 1:
        value: torch.Tensor = model(**batch).loss
        return value
    rows, columns = batch["labels"].shape
    places = torch.arange(1, columns).repeat(rows)
    positions = torch.arange(rows).repeat_interleave(columns - 1), places
    return token_loss(model, batch, positions, HEAD_LOSSES["chunked"])[0]


@contextlib.contextmanager
def _as_in_a_run() -> Iterator[None]:
    """Let transformers take the attention path of a real batch; what it does when it is traced keeps 6 % more."""
    with mock.patch("transformers.masking_utils.is_tracing", lambda *_: False):
        yield


@contextlib.contextmanager
def _recurrent_inputs(model: nn.Module) -> Iterator[list[tuple[nn.LSTM, torch.Size]]]:
    """Every call of an LSTM within the block, with the shape of its input."""
    calls: list[tuple[nn.LSTM, torch.Size]] = []

    def note(module: nn.LSTM, inputs: tuple[torch.Tensor, ...]) -> None:
        calls.append((module, inputs[0].shape))

    hooks = [m.register_forward_pre_hook(note) for m in model.modules() if isinstance(m, nn.LSTM)]
    try:
        yield calls
    finally:
        for hook in hooks:
            hook.remove()


def _unseen_bytes(module: nn.LSTM, shape: torch.Size) -> int:
    """What an LSTM keeps beyond what its trace shows.

    On CPU oneDNN computes it and keeps a workspace, which fake tensors never get to. So one of the same shape runs for
    real, apart from the model: those of prompt encoders are small.
    """

    def saved_bytes() -> int:
        names = ("input_size", "hidden_size", "num_layers", "bias", "batch_first", "bidirectional")
        lstm = nn.LSTM(**{name: getattr(module, name) for name in names}, dtype=module.weight_ih_l0.dtype)
        given = torch.zeros(shape, dtype=lstm.weight_ih_l0.dtype, requires_grad=True)
        with saved_activations(lstm) as saved:
            out = lstm(given)
        size = saved.bytes
        del out
        return size

    with FakeTensorMode():
        traced = saved_bytes()
    return saved_bytes() - traced


def _make_fake(model: nn.Module) -> None:
    """Replace every parameter and buffer by a fake one of its shape; what was tied stays tied."""
    fakes: dict[int, torch.Tensor] = {}
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                if id(parameter) not in fakes:
                    fakes[id(parameter)] = _fake_parameter(parameter)
                module._parameters[name] = fakes[id(parameter)]
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = fakes.setdefault(id(buffer), _fake(buffer))


def _fake(tensor: torch.Tensor) -> torch.Tensor:
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="cpu")


def _fake_parameter(parameter: torch.Tensor) -> torch.Tensor:
    fake = nn.Parameter(_fake(parameter), requires_grad=parameter.requires_grad)
    if (state := getattr(parameter, "quant_state", None)) is not None:
        fake.quant_state = _fake_state(state)
    return fake


def _fake_state(state: Any) -> Any:
    """A quantisation state with fake scales."""
    new = copy.copy(state)
    for name in ("absmax", "code", "offset"):
        if isinstance(value := getattr(state, name), torch.Tensor):
            setattr(new, name, _fake(value))
    if state.state2 is not None:
        new.state2 = _fake_state(state.state2)
    return new
