"""The estimate: one training step's memory by category and its FLOPs, from a model's shape."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, get_args

import torch
from peft import PromptLearningConfig
from torch import nn

from harness import methods
from harness.errors import InputError, unknown
from harness.estimate.meta import LAYER_COUNTS, MetaBase, meta_base
from harness.estimate.states import state_bytes
from harness.estimate.trace import Trace, trace
from harness.execution import Execution
from harness.models.configuration import refused
from harness.models.formats import torch_dtype
from harness.models.spec import ModelSpec, at_path
from harness.networks.tuned import Tuned
from harness.trial import DType

DTYPES: tuple[DType, ...] = get_args(DType)

#: More tokens or examples than in any step; their products still can be counted.
LARGEST = 10**6


class CannotApply(InputError):
    """The method refuses its arguments, or the model cannot be built: neither would a run be possible."""


@dataclass(frozen=True)
class Estimate:
    """One training step with AdamW: forward, backward, update."""

    model: str
    method: str
    batch_size: int
    length: int
    dtype: str
    optimizer_dtype: str
    gradient_checkpointing: bool
    total_params: int
    trainable_params: int
    weights_bytes: int
    """Parameters and buffers, quantisation scales included."""
    gradients_bytes: int
    optimizer_bytes: int
    """Two moments and a step counter for each tensor that trains."""
    activations_bytes: int
    """What the forward pass keeps for the backward pass."""
    temporary_bytes: int
    """What the peak needs beyond the categories, such as the gradient of the logits."""
    total_bytes: int
    """The peak. Below the sum of the categories where gradients grow while activations go: never all are there."""
    flops: int
    """FLOPs of one step: matrix products and attention, forward and backward."""
    method_args: Mapping[str, Any] = field(default_factory=dict)

    def fits(self, memory_bytes: int) -> bool:
        """Whether the peak is within ``memory_bytes``."""
        return self.total_bytes <= memory_bytes


def estimate(
    model: str,
    method: str = "full",
    method_args: Mapping[str, Any] | None = None,
    *,
    batch_size: int = 1,
    length: int = 512,
    dtype: str = "bfloat16",
    optimizer_dtype: str | None = "float32",
    gradient_checkpointing: bool = False,
    execution: Execution | None = None,
    labels: int = 2,
) -> Estimate:
    """Estimate a training step of ``method`` on ``model``, a name of the registry or a path of a ``config.json``.

    By default the papers' accounting: 16-bit weights and gradients, 32-bit Adam states. ``optimizer_dtype`` None is
    what a run does: what trains is held in float32, with its gradients and states. An encoder classifies into
    ``labels`` classes. An encoder-decoder reads ``length`` tokens and writes half as many, the most that a prompt
    leaves for an answer. ``execution`` says how it trains; a packed batch counts as one of full length, with a mask of
    a byte for each pair of its tokens. Nothing is fetched, and neither weights nor an accelerator are needed.

    Raises :class:`harness.errors.InputError` for an unknown model, method, argument or format, and for a length beyond
    the model's positions.
    """
    for where, name in (("dtype", dtype), ("optimizer-dtype", optimizer_dtype)):
        if name is not None and name not in DTYPES:
            raise unknown(where, name, DTYPES)
    for where, number in (("batch", batch_size), ("length", length)):
        if not 1 <= number <= LARGEST:
            raise InputError(f"{where}: {number} is not a number from 1 to {LARGEST}")
    spec = at_path(model)
    args = dict(method_args or {})
    words = tuple(str(number) for number in range(labels))

    how = execution or Execution(gradient_checkpointing=gradient_checkpointing)
    base = replace(meta_base(spec, dtype, words), master_weights=optimizer_dtype is None, attention=how.attention)
    part = -(-batch_size // how.accumulation)

    @cache
    def applied(layers: int | None) -> Tuned:
        return _apply(method, replace(base, layers=layers), args)

    def traced(layers: int | None) -> Trace:
        tuned = applied(layers)
        _check_length(tuned, length, model)
        try:
            checkpointed = how.gradient_checkpointing
            return trace(tuned, part, length, gradient_checkpointing=checkpointed, loss=how.loss)
        except RuntimeError as error:
            if not how.gradient_checkpointing:
                raise
            # Checkpointing computes layers again without the cache of keys and values, where prefixes live.
            raise InputError(f"{method}: does not work with gradient checkpointing on {model}") from error

    # What libraries advise about a model that is never run is of no use to anybody.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with _own_configuration(spec):
            step_trace = _whole_or_along(base, applied, traced)
    size = torch.finfo(torch_dtype(optimizer_dtype)).bits // 8 if optimizer_dtype else None
    if size is None:  # states are of the format of what trains
        size = step_trace.gradients_bytes // max(step_trace.trained_elements, 1)
    optimizer = state_bytes(how.optimizer, step_trace.trained, size)
    total = step_trace.weights_bytes + optimizer + _peak(step_trace, how, part * length)
    parts = step_trace.weights_bytes + step_trace.gradients_bytes + optimizer + step_trace.activations_bytes
    return Estimate(
        model=model,
        method=method,
        method_args=args,
        batch_size=batch_size,
        length=length,
        dtype=dtype,
        optimizer_dtype=optimizer_dtype or dtype,
        gradient_checkpointing=how.gradient_checkpointing,
        total_params=step_trace.total_params,
        trainable_params=step_trace.trainable_params,
        weights_bytes=step_trace.weights_bytes,
        gradients_bytes=step_trace.gradients_bytes,
        optimizer_bytes=optimizer,
        activations_bytes=step_trace.activations_bytes,
        temporary_bytes=max(total - parts, 0),
        total_bytes=total,
        flops=step_trace.flops * how.accumulation,
    )


def check(model: str, method: str, method_args: Mapping[str, Any], dtype: str, labels: int, *, scalar: bool) -> None:
    """Raise :class:`CannotApply` where ``model`` does not take these arguments of ``method``; nothing is traced.

    ``labels`` as of :func:`estimate`; with ``scalar`` the network ends in a single number.
    """
    spec = at_path(model)
    base = replace(meta_base(spec, dtype, tuple(map(str, range(labels)))), master_weights=True, scalar=scalar)
    with warnings.catch_warnings(), _own_configuration(spec):
        warnings.simplefilter("ignore")
        _apply(method, base, method_args)


def _peak(step: Trace, how: Execution, tokens: int) -> int:
    """The highest amount beside weights and optimiser states, in a part of ``tokens`` tokens."""
    peak = max(step.forward_peak_bytes, step.backward_start_peak_bytes, step.backward_end_peak_bytes)
    if how.accumulation > 1:  # the gradients of the parts before are there from the start
        end = max(step.backward_end_peak_bytes - step.gradients_bytes, 0)
        peak = step.gradients_bytes + max(step.forward_peak_bytes, step.backward_start_peak_bytes, end)
    return peak + (tokens**2 if how.packing else 0)


@contextlib.contextmanager
def _own_configuration(spec: ModelSpec) -> Iterator[None]:
    """Blame the configuration of an own model for whatever a library says while it builds and runs the network."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        if "overflow" in str(error).lower():
            raise InputError("batch, length: a step of so many tokens has more numbers than can be counted") from error
        if not spec.is_own:
            raise
        raise CannotApply(str(refused(spec.address, error))) from error


def _apply(method: str, base: MetaBase, args: Mapping[str, Any]) -> Tuned:
    try:
        # How long the training is changes no size.
        return methods.apply(method, base, **{"train_steps": 1, **args})
    except InputError as error:
        # Without weights a library may refuse what it would take with them.
        if isinstance(cause := _first_cause(error), ValueError | TypeError) and "meta" not in str(cause):
            raise CannotApply(str(error)) from error
        raise
    except NotImplementedError as error:
        raise InputError(f"{method}: {args} needs the weights, so it cannot be estimated without them") from error


def _first_cause(error: BaseException) -> BaseException:
    while error.__cause__ is not None:
        error = error.__cause__
    return error


#: What transformers calls the table of an architecture that learns its positions.
_POSITIONS = ("position_embeddings", "embed_positions", "wpe")


def _check_length(tuned: Tuned, length: int, model: str) -> None:
    """:class:`InputError` where learned positions end before the input does; virtual tokens take places, too."""
    configs = getattr(tuned.model, "peft_config", {}).values()
    virtual = sum(c.num_virtual_tokens for c in configs if isinstance(c, PromptLearningConfig))
    for name, module in tuned.model.named_modules():
        if isinstance(module, nn.Embedding) and name.rpartition(".")[2] in _POSITIONS:
            unused = 0 if module.padding_idx is None else module.padding_idx + 1
            places = module.num_embeddings - getattr(module, "offset", unused)
            if length + virtual > places:
                beside = f" and {virtual} virtual tokens" if virtual else ""
                raise InputError(f"length: {length}{beside} are more than the {places} positions of {model}")


def _whole_or_along(
    base: MetaBase, applied: Callable[[int | None], Tuned], traced: Callable[[int | None], Trace]
) -> Trace:
    """Trace the whole model, or two shallow copies of a deep one: every number lies on the line through them."""
    layers = base.config().num_hidden_layers
    if (few := _shallow(base, applied)) is None:
        return traced(None)
    return traced(few).at(layers, few, traced(2 * few), 2 * few)


def _shallow(base: MetaBase, applied: Callable[[int | None], Tuned]) -> int | None:
    """The smallest number of layers from which on more of them are more of the same; None: trace the whole model.

    A method may treat some layers in its own way, such as the last k. Copies that are too shallow for that either do
    not have those layers, or their parameters do not lie on a line.
    """
    config = base.config()
    layers = config.num_hidden_layers
    if any(getattr(config, name, layers) != layers for name in LAYER_COUNTS):
        return None
    types = getattr(config, "layer_types", None) or ["all alike"] * layers
    period = next(p for p in range(1, layers + 1) if all(types[i] == types[i - p] for i in range(p, layers)))
    few = max(period, 2)
    if layers % period:
        return None

    def parameters(number: int) -> tuple[int, int] | None:
        try:
            tuned = applied(number)
        except InputError:  # the method asks for more layers than a copy has
            return None
        return tuned.total_params, tuned.trainable_params

    while layers >= 4 * few:
        first, second, third = (parameters(number * few) for number in (1, 2, 4))
        if (
            first
            and second
            and third
            and all(c - b == 2 * (b - a) for a, b, c in zip(first, second, third, strict=True))
        ):
            return few
        few *= 2
    return None
