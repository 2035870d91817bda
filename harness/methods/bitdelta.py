r"""BitDelta: a full fine-tune kept as one bit per weight (Liu et al. 2024, arXiv:2402.10193).

.. math:: \Delta = W_{fine} - W_{base}, \qquad \hat\Delta = \alpha \odot \mathrm{Sign}(\Delta), \qquad
          \alpha = \frac{1}{nm} \sum_{ij} |\Delta_{ij}|

This :math:`\alpha` minimises :math:`\lVert \Delta - \hat\Delta \rVert_2` for the given signs, and zero counts as
negative. Then the scales alone are trained, so that the logits come near those of the fine-tune (scale distillation):

.. math:: \alpha^* = \arg\min_\alpha \mathbb{E}_x \big[ \lVert Z_{fine}(x) - Z_{bin}(x; \alpha) \rVert^2 \big]

Linear layers inside the transformer layers get one bit per weight and one scale; everything else is stored as it is.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from transformers.pytorch_utils import Conv1D

from harness import methods
from harness.errors import InputError
from harness.models.load import Base
from harness.networks.structure import blocks, in_features, linear_layers, out_features
from harness.networks.tuned import Tuned

#: A scale is a float32.
SCALE_BYTES = 4


def pack_signs(matrix: torch.Tensor) -> torch.Tensor:
    """Signs of a matrix (rows, columns), 8 to a byte along each row, lowest bit first: (rows, ceil(columns / 8))."""
    positive = functional.pad((matrix > 0).to(torch.uint8), (0, -matrix.shape[1] % 8))
    weights = torch.tensor([1, 2, 4, 8, 16, 32, 64, 128], dtype=torch.uint8, device=matrix.device)
    return (positive.view(matrix.shape[0], -1, 8) * weights).sum(-1, dtype=torch.uint8)


def unpack_signs(packed: torch.Tensor, columns: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """The inverse of :func:`pack_signs`: a matrix of -1 and 1."""
    byte = torch.arange(256, dtype=torch.uint8, device=packed.device).unsqueeze(-1)
    bits = torch.arange(8, dtype=torch.uint8, device=packed.device)
    table = ((byte >> bits) & 1).to(dtype) * 2 - 1
    return functional.embedding(packed.int(), table).flatten(1)[:, :columns]


class _SignLinear(torch.autograd.Function):
    """``x @ S.T`` that keeps the packed signs for the backward pass, not the unpacked ones."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, packed: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(packed)
        ctx.columns = x.shape[-1]
        return functional.linear(x, unpack_signs(packed, x.shape[-1], x.dtype))

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        (gradient,) = gradients
        (packed,) = ctx.saved_tensors
        return gradient @ unpack_signs(packed, ctx.columns, gradient.dtype), None


class OneBitDelta(nn.Module):
    """The change of one linear layer: from inputs (..., columns) to what is added to its outputs (..., rows)."""

    signs: torch.Tensor

    def __init__(self, rows: int, columns: int, device: torch.device) -> None:
        super().__init__()
        self.columns = columns
        self.register_buffer("signs", torch.zeros(rows, math.ceil(columns / 8), dtype=torch.uint8, device=device))
        # Trained as its logarithm: a step is then relative to the scale, however small the fine-tune's changes are.
        self.log_alpha = nn.Parameter(torch.full((), -math.inf, dtype=torch.float32, device=device))

    @property
    def alpha(self) -> torch.Tensor:
        """The scale, float32 without dimensions; 0 until there is a delta."""
        return self.log_alpha.exp()

    @torch.no_grad()
    def set(self, delta: torch.Tensor) -> None:
        """Take the signs and the mean absolute value of ``delta``, a matrix (rows, columns)."""
        self.signs.copy_(pack_signs(delta))
        self.log_alpha.copy_(delta.float().abs().mean().log())

    def matrix(self, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """The delta itself, (rows, columns)."""
        return self.alpha.to(dtype) * unpack_signs(self.signs, self.columns, dtype)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """What the delta adds to the layer's outputs."""
        added: torch.Tensor = self.alpha.to(x.dtype) * _SignLinear.apply(x, self.signs)
        return added


def _rows_first(layer: nn.Module) -> torch.Tensor:
    """The weight of a linear layer as (outputs, inputs); GPT-2 keeps it the other way round."""
    weight: torch.Tensor = layer.weight
    return weight.T if isinstance(layer, Conv1D) else weight


def _add_delta(layer: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
    changed: torch.Tensor = output + layer.delta(inputs[0])
    return changed


def _one_bit_layers(model: nn.Module) -> list[tuple[str, nn.Module]]:
    names = {id(module): name for name, module in model.named_modules()}
    return [(names[id(layer)], layer) for block in blocks(model) for _, layer in linear_layers(block.module)]


def deltas(model: nn.Module) -> dict[str, OneBitDelta]:
    """The deltas of a model from :func:`apply`, by the name of their layer."""
    return {
        name.removesuffix(".delta"): module for name, module in model.named_modules() if isinstance(module, OneBitDelta)
    }


class Distillation:
    """The loss of the scales: the mean squared distance to the logits of the fine-tune. Labels do not matter."""

    def __init__(self, teacher: nn.Module) -> None:
        self._teacher: nn.Module | None = teacher.requires_grad_(False).eval()

    def release(self) -> None:
        """Release the fine-tune after the scales are trained; distillation is impossible from then on."""
        self._teacher = None

    def __call__(self, model: nn.Module, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """The loss of a batch; it ignores the labels."""
        inputs: dict[str, Any] = {name: value for name, value in batch.items() if name != "labels"}
        if "position_ids" in inputs:  # a packed row: with a cache, transformers would take it for one long text
            inputs["use_cache"] = False
        return self.distance(inputs, model(**inputs).logits)

    def distance(self, inputs: Mapping[str, Any], logits: torch.Tensor) -> torch.Tensor:
        """Mean squared distance of ``logits`` from the fine-tune's on the same inputs; padding does not count."""
        if self._teacher is None:
            raise RuntimeError("bitdelta: the fine-tune has been released")
        with torch.no_grad():
            wanted = self._teacher(**inputs).logits
        squared = (logits.float() - wanted.float()).square().mean(-1)
        mask = inputs.get("decoder_attention_mask", inputs.get("attention_mask"))
        if mask is None or mask.shape != squared.shape:  # a classifier has one row of logits for a text
            return squared.mean()
        return (squared * mask).sum() / mask.sum()


def apply(base: Base, parent: str | None = None, embeddings: bool = True) -> Tuned:
    """The base with the one-bit delta of the full fine-tune in the folder ``parent``; only the scales train.

    ``embeddings`` also takes the fine-tune's input and output embeddings, in full precision, as the paper does. Without
    them the model keeps the base's, and the checkpoint is smaller. Without a ``parent`` all deltas are zero, ready for
    loading.

    Training on any examples distils the scales: it ignores labels, and the loss is the distance to the fine-tune's
    logits. Raises :class:`harness.errors.InputError` if ``parent`` is not a full fine-tune of ``base``.
    """
    model = base.build().requires_grad_(False)
    layers = _one_bit_layers(model)
    for _, layer in layers:
        rows, columns = out_features(layer), in_features(layer)
        assert rows is not None and columns is not None  # noqa: S101 - these are linear layers
        layer.add_module("delta", OneBitDelta(rows, columns, base.device))
        layer.register_forward_hook(_add_delta)
    distillation = None
    if parent is not None:
        teacher = load_parent(base, parent)
        _take_over(model, teacher, embeddings)
        distillation = Distillation(teacher)
    return Tuned(
        base,
        model,
        merge=partial(_folded, model),
        own_loss=distillation,
        also_stored=(*(f"{name}.delta.signs" for name, _ in layers), *_kept_whole(model, embeddings)),
    )


def load_parent(base: Base, parent: str) -> nn.Module:
    """The full fine-tune of ``base`` in the folder ``parent``; :class:`harness.errors.InputError` if it is not one."""
    try:
        fine_tune = methods.load(base, parent)
    except (OSError, ValueError) as error:
        raise InputError(f"bitdelta.parent: {error}") from error
    if fine_tune.method != "full":
        raise InputError(f"bitdelta.parent: {parent} holds a '{fine_tune.method}' model; a 'full' fine-tune is needed")
    return fine_tune.model


@torch.no_grad()
def _take_over(model: nn.Module, teacher: nn.Module, embeddings: bool) -> None:
    tuned = dict(teacher.named_modules())
    for name, layer in _one_bit_layers(model):
        layer.delta.set(_rows_first(tuned[name]) - _rows_first(layer))
    parameters, fine = dict(model.named_parameters()), dict(teacher.named_parameters())
    for name in _kept_whole(model, embeddings):
        parameters[name].copy_(fine[name])


def _kept_whole(model: nn.Module, embeddings: bool) -> list[str]:
    """Names of the parameters to store unchanged: biases, norms, heads and, on request, embeddings."""
    one_bit = {id(layer.weight) for _, layer in _one_bit_layers(model)}
    scales = {id(delta.log_alpha) for delta in deltas(model).values()}
    sides = (model.get_input_embeddings(), model.get_output_embeddings())
    left_out = set() if embeddings else {id(side.weight) for side in sides if side is not None}
    return [name for name, p in model.named_parameters() if id(p) not in one_bit | scales | left_out]


@torch.no_grad()
def distance(tuned: Tuned, inputs: Mapping[str, torch.Tensor]) -> float:
    """How far the logits are from the fine-tune's on ``inputs``: the training loss, on any texts.

    Raises RuntimeError if there is no fine-tune in memory.
    """
    if not isinstance(tuned.own_loss, Distillation):
        raise RuntimeError("bitdelta: there is no fine-tune to compare with")
    return float(tuned.own_loss(tuned.model, inputs))


def release_teacher(tuned: Tuned) -> None:
    """Free the memory of the fine-tune, the teacher of the scales."""
    if isinstance(tuned.own_loss, Distillation):
        tuned.own_loss.release()


@contextlib.contextmanager
def _folded(model: nn.Module) -> Iterator[nn.Module]:
    """The plain network with the deltas added to its weights; afterwards base and deltas are separate again."""
    layers = [layer for _, layer in _one_bit_layers(model)]
    weights = [layer.weight.detach().cpu().clone() for layer in layers]
    hooks = [layer._forward_hooks.copy() for layer in layers]
    with torch.no_grad():
        for layer in layers:
            weight = _rows_first(layer)
            weight.add_(layer.delta.matrix(weight.dtype))
            layer._forward_hooks.clear()
    try:
        yield model
    finally:
        with torch.no_grad():
            for layer, weight, own_hooks in zip(layers, weights, hooks, strict=True):
                layer.weight.copy_(weight)
                layer._forward_hooks.update(own_hooks)


@dataclass(frozen=True)
class DeltaSize:
    """The bytes of a delta, without its file's small header."""

    signs: int
    scales: int
    rest: int
    """Bytes of the parameters that are stored unchanged."""

    @property
    def total(self) -> int:
        """Total bytes."""
        return self.signs + self.scales + self.rest


def delta_size(model: nn.Module, embeddings: bool = True, itemsize: int | None = None) -> DeltaSize:
    """The size of a delta for ``model``, which may be on the meta device: nothing is computed.

    ``itemsize`` is the size in bytes of an element that is stored unchanged; None: as it is now.
    """
    layers = _one_bit_layers(model)
    parameters = dict(model.named_parameters())
    whole = [parameters[name] for name in _kept_whole(model, embeddings)]
    return DeltaSize(
        signs=sum(out_features(m) * math.ceil(in_features(m) / 8) for _, m in layers),  # type: ignore[misc,operator]
        scales=SCALE_BYTES * len(layers),
        rest=sum(p.numel() * (itemsize or p.element_size()) for p in whole),
    )
