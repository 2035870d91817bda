"""What one tuned model adds to its base, as tensors: a tenant of a server.

The parts are recognised by their structure. What a tuned model stores and no part here takes up cannot be served beside
others, so :func:`tenant_of` refuses it: a tenant is whole, or it is none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, PeftType, PromptLearningConfig
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from harness.errors import InputError
from harness.measure.memory import storage_bytes
from harness.methods import adapter, bitdelta
from harness.networks.structure import is_norm, out_features
from harness.networks.tuned import Tuned

#: Initialisations of LoRA that leave the base's weights as they are; the others (PiSSA, OLoRA) change them.
_BASE_UNTOUCHED = (True, False, "gaussian", "orthogonal")


@dataclass(frozen=True)
class LowRank:
    """LoRA on one linear layer: ``x @ down @ up`` is added to its outputs."""

    down: Tensor
    """(inputs, rank)"""
    up: Tensor
    """(rank, outputs), with the scale multiplied in"""


@dataclass(frozen=True)
class Bottleneck:
    """A bottleneck adapter behind one linear layer: ``act(h @ down + down_bias) @ up + up_bias`` is added to h."""

    down: Tensor
    """(width, units)"""
    down_bias: Tensor
    """(units,)"""
    up: Tensor
    """(units, width)"""
    up_bias: Tensor
    """(width,)"""
    activation: Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class OneBit:
    """BitDelta on one linear layer: ``alpha * x @ signs.T`` is added to its outputs."""

    signs: Tensor
    """(outputs, inputs / 8 rounded up), uint8; see :func:`harness.methods.bitdelta.pack_signs`"""
    alpha: Tensor
    """Without dimensions."""


@dataclass(frozen=True)
class Shift:
    """Change of a layer's own vectors: of its bias and, for a normalisation, of its weight too."""

    bias: Tensor | None
    """(outputs,)"""
    weight: Tensor | None = None
    """(outputs,)"""


@dataclass(frozen=True)
class Tenant:
    """One tuned model, as what it adds to the base. Layers go by their names in the plain network."""

    name: str
    method: str = ""
    low_rank: Mapping[str, LowRank] = field(default_factory=dict)
    bottleneck: Mapping[str, Bottleneck] = field(default_factory=dict)
    one_bit: Mapping[str, OneBit] = field(default_factory=dict)
    shift: Mapping[str, Shift] = field(default_factory=dict)
    prefix: Tensor | None = None
    """Keys and values before the text: (layers, 2, key-value heads, virtual tokens, head size)."""
    prompt: Tensor | None = None
    """Embeddings before the text: (virtual tokens, width)."""

    def tensors(self) -> Iterator[Tensor]:
        """All of its tensors."""
        for part in (self.low_rank, self.bottleneck, self.one_bit, self.shift):
            for of_layer in part.values():
                yield from (value for value in vars(of_layer).values() if isinstance(value, Tensor))
        yield from (value for value in (self.prefix, self.prompt) if value is not None)

    @property
    def bytes(self) -> int:
        """Bytes of its tensors."""
        return storage_bytes(self.tensors())

    def map(self, change: Callable[[Tensor], Tensor]) -> Tenant:
        """The same tenant with every tensor replaced by what ``change`` gives for it."""

        def each(value: Any) -> Any:
            return change(value) if isinstance(value, Tensor) else value

        parts: dict[str, Any] = {
            name: {
                layer: replace(of_layer, **{f.name: each(getattr(of_layer, f.name)) for f in fields(of_layer)})
                for layer, of_layer in getattr(self, name).items()
            }
            for name in ("low_rank", "bottleneck", "one_bit", "shift")
        }
        return replace(self, **parts, prefix=each(self.prefix), prompt=each(self.prompt))

    def write(self, file: Path) -> None:
        """Write its tensors, as safetensors; what they are for is not written."""
        save_file({str(place): tensor.contiguous() for place, tensor in enumerate(self.tensors())}, file)

    def read(self, file: Path) -> Tenant:
        """The tenant of this one's kinds and shapes whose tensors :meth:`write` wrote."""
        tensors = load_file(file)
        place = {id(tensor): str(number) for number, tensor in enumerate(self.tensors())}
        return self.map(lambda tensor: tensors[place[id(tensor)]].to(tensor.device))


@torch.no_grad()
def tenant_of(tuned: Tuned, network: nn.Module, name: str) -> Tenant:
    """The tenant that ``tuned`` is; ``network`` is its base, plain and untrained.

    Takes LoRA (also of QLoRA), bottleneck adapters behind a layer, changed biases and norms, BitDelta without
    embeddings, prefixes and prompts. Raises :class:`harness.errors.InputError` for everything else.
    """
    taken: set[int] = set()
    tenant = Tenant(name, tuned.method)
    model = tuned.model
    if isinstance(model, PeftModel):
        config = model.peft_config["default"]
        if isinstance(config, PromptLearningConfig):
            taken |= {id(p) for p in model.prompt_encoder.parameters()}
            tenant = replace(tenant, **_virtual(model, config))
        elif config.peft_type == PeftType.LORA:
            tenant = replace(tenant, low_rank=_low_rank(model, name, taken))
    else:
        tenant = replace(
            tenant,
            bottleneck=_bottlenecks(model, name, taken),
            one_bit=_one_bit(model, taken),
            shift=_shifts(model, network, taken),
        )
    if left := [stored for stored, tensor in tuned.stored.items() if id(tensor) not in taken]:
        raise InputError(
            f"tenant '{name}': {left[0]}{f' and {len(left) - 1} more' if len(left) > 1 else ''} of {tuned.method} "
            "cannot be served beside others; valid: LoRA, QLoRA, adapters behind a layer, biases, norms, prefixes, "
            "prompts, BitDelta with 'embeddings: false'"
        )
    return tenant.map(lambda tensor: tensor.detach().clone())


def _low_rank(model: PeftModel, tenant: str, taken: set[int]) -> dict[str, LowRank]:
    config = model.peft_config["default"]
    if config.use_dora or config.init_lora_weights not in _BASE_UNTOUCHED:
        what = "DoRA" if config.use_dora else f"init '{config.init_lora_weights}', which changes the base,"
        raise InputError(f"tenant '{tenant}': {what} cannot be served beside others; valid: plain LoRA")
    parts = {}
    for layer, module in model.get_base_model().named_modules():
        if isinstance(module, LoraLayer) and "default" in module.lora_A:
            down, up = module.lora_A["default"].weight, module.lora_B["default"].weight
            parts[layer] = LowRank(down.T, up.T * module.scaling["default"])
            taken |= {id(down), id(up)}
    return parts


def _virtual(model: PeftModel, config: PromptLearningConfig) -> dict[str, Tensor]:
    given = model.get_prompt(batch_size=1)
    if config.peft_type != PeftType.PREFIX_TUNING:
        return {"prompt": given[0]}
    layers = [(layer.keys, layer.values) for layer in given.layers]
    return {"prefix": torch.stack([torch.stack([keys[0], values[0]]) for keys, values in layers])}


def _bottlenecks(model: nn.Module, tenant: str, taken: set[int]) -> dict[str, Bottleneck]:
    parts = {}
    for name, module in model.named_modules():
        if not isinstance(module, adapter.Bottleneck):
            continue
        if isinstance(module, adapter.Parallel) or not isinstance(module.norm, nn.Identity):
            raise InputError(f"tenant '{tenant}': this adapter reads another place; valid: houlsby, pfeiffer")
        down, up = module.down, module.up
        parts[name.removesuffix(".adapter")] = Bottleneck(
            down.weight.T, down.bias, up.weight.T, up.bias, module.activation
        )
        taken |= {id(p) for p in module.parameters()}
    return parts


def _one_bit(model: nn.Module, taken: set[int]) -> dict[str, OneBit]:
    parts = {}
    for name, delta in bitdelta.deltas(model).items():
        parts[name] = OneBit(delta.signs, delta.alpha)
        taken |= {id(delta.signs), id(delta.log_alpha)}
    return parts


def _shifts(model: nn.Module, network: nn.Module, taken: set[int]) -> dict[str, Shift]:
    """The changes of biases and of norms' weights; those that did not change are taken up too, and cost nothing."""
    plain = dict(network.named_modules())
    parts = {}
    for name, module in model.named_modules():
        if name not in plain or not (is_norm(module) or out_features(module) is not None):
            continue
        own = dict(module.named_parameters(recurse=False))
        vectors = [kind for kind in ("bias", "weight") if kind in own and (kind == "bias" or is_norm(module))]
        taken |= {id(own[kind]) for kind in vectors}
        before = {kind: getattr(plain[name], kind, None) for kind in vectors}
        change = {kind: own[kind] - (0 if old is None else old) for kind, old in before.items()}
        if any(bool(vector.any()) for vector in change.values()):
            parts[name] = Shift(change.get("bias"), change.get("weight"))
    return parts


def made_up(template: Tenant, seed: int, scale: float = 0.02) -> Tenant:
    """A tenant with the shapes of ``template`` and random values: it costs the same, and answers nonsense.

    ``scale`` is the standard deviation of its numbers; signs are fair coins.
    """
    generator = torch.Generator().manual_seed(seed)

    def drawn(like: Tensor) -> Tensor:
        if like.dtype == torch.uint8:
            return torch.randint(0, 256, like.shape, generator=generator, dtype=torch.uint8).to(like.device)
        # A scale of BitDelta is positive, and far smaller than a weight.
        values = torch.randn(like.shape, generator=generator) * scale if like.dim() else torch.tensor(scale / 100)
        return values.to(like)

    return replace(template.map(drawn), name=f"{template.name} {seed}")
