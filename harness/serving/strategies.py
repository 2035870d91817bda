"""The ways to serve many tuned models of one base."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor, nn

from harness.errors import InputError
from harness.measure.memory import storage_bytes, weights_bytes
from harness.models.load import quiet
from harness.serving.mixed import Mixed, twin
from harness.serving.serve import Forward, OneByOne, Strategy
from harness.serving.tenant import LowRank, Tenant


class BaseAlone(Strategy):
    """No tenants: every request is answered by the base. The floor under all other times."""

    def __init__(self, network: nn.Module, name: str = "base alone") -> None:
        self.name, self.method, self.network = name, "baseline", network

    def ready(self, tenants: Sequence[int | None]) -> Forward:
        """The base."""
        forward: Forward = self.network.forward
        return forward

    @property
    def base_bytes(self) -> int:
        """All weights."""
        return weights_bytes(self.network)

    @property
    def tenants_bytes(self) -> int:
        """None."""
        return 0


class Copies(OneByOne):
    """A whole network for each tenant: full fine-tunes, or LoRA merged into as many copies of the base."""

    def __init__(self, networks: Sequence[nn.Module], name: str = "copies", method: str = "full") -> None:
        self.name, self.method, self.networks = name, method, list(networks)
        self.network = self.networks[0]

    def ready(self, tenants: Sequence[int | None]) -> Forward:
        """The network of the one tenant; raises InputError for the base, of which there is no copy."""
        if tenants[0] is None:
            raise InputError(f"{self.name}: there is no copy of the base; valid: places of tenants")
        forward: Forward = self.networks[tenants[0]].forward
        return forward

    def loading(self, folder: Path) -> Callable[[], object]:
        """A whole model."""
        network = self.networks[0]
        with quiet():
            network.save_pretrained(folder)

        def read() -> nn.Module:
            with quiet():
                copy: nn.Module = type(network).from_pretrained(folder, dtype=network.dtype)
            return copy.to(network.device)

        return read

    @property
    def base_bytes(self) -> int:
        """Nothing is shared."""
        return 0

    @property
    def tenants_bytes(self) -> int:
        """All weights of all copies."""
        return sum(weights_bytes(network) for network in self.networks)


class Swapped(OneByOne):
    """LoRA merged into the only network there is; whoever comes next is merged into the base's weights anew.

    The weights of the base are held a second time: subtracting a tenant again would leave rounding errors, and they
    would grow from swap to swap.
    """

    def __init__(self, network: nn.Module, tenants: Sequence[Tenant], name: str = "merged, swapped") -> None:
        self.name, self.method, self.network = name, "lora", network
        self.tenants = list(tenants)
        layers = {layer for tenant in tenants for layer in tenant.low_rank}
        modules = {layer: module for layer, module in network.named_modules() if layer in layers}
        self._weights = {layer: rows_first(module) for layer, module in modules.items()}
        self._base = {layer: weight.clone() for layer, weight in self._weights.items()}
        self._now: int | None = None

    @torch.inference_mode()
    def ready(self, tenants: Sequence[int | None]) -> Forward:
        """The network with the one tenant merged into it."""
        if (wanted := tenants[0]) != self._now:
            coming = {} if wanted is None else self.tenants[wanted].low_rank
            for layer, weight in self._weights.items():
                weight.copy_(self._base[layer])
                if layer in coming:
                    weight.add_(merged_change(coming[layer], weight))
            self._now = wanted
        forward: Forward = self.network.forward
        return forward

    def loading(self, folder: Path) -> Callable[[], object]:
        """The matrices of a tenant; merging them is a swap."""
        return _reading(self, self.tenants[0], folder)

    def replace(self, place: int, tenant: Tenant) -> None:
        """Another tenant; it is merged when it is asked for."""
        self.tenants[place] = tenant
        self._now = -1 if self._now == place else self._now

    @property
    def base_bytes(self) -> int:
        """The network and the second copy of its weights."""
        return weights_bytes(self.network) + storage_bytes(self._base.values())

    @property
    def tenants_bytes(self) -> int:
        """The matrices that wait to be merged."""
        return sum(tenant.bytes for tenant in self.tenants)


def _reading(strategy: Swapped | Batched, tenant: Tenant, folder: Path) -> Callable[[], object]:
    file = folder / "tenant.safetensors"
    tenant.write(file)
    return lambda: strategy.replace(0, tenant.read(file))


def rows_first(layer: nn.Module) -> Tensor:
    """The weight of a linear layer as (outputs, inputs), a view. Raises InputError where there is no plain one."""
    weight: Tensor = layer.weight.data
    if not weight.is_floating_point():
        raise InputError("merged: the base is quantised, so nothing can be merged into it; valid: a plain base")
    return weight if isinstance(layer, nn.Linear) else weight.T


def merged_change(part: LowRank, weight: Tensor) -> Tensor:
    """What merging adds to ``weight``, (outputs, inputs), in its format."""
    return (part.down @ part.up).T.to(weight)


@torch.no_grad()
def merge(network: nn.Module, tenant: Tenant) -> nn.Module:
    """``network`` with the tenant's LoRA added to its weights for good."""
    layers = dict(network.named_modules())
    for layer, part in tenant.low_rank.items():
        weight = rows_first(layers[layer])
        weight.add_(merged_change(part, weight))
    return network


class OneAdapter(OneByOne):
    """PEFT's LoRA beside the weights, one tenant active at a time (``set_adapter``)."""

    def __init__(self, model: PeftModel, name: str = "unmerged, one at a time") -> None:
        self.name, self.method, self.model = name, "lora", model
        self.network = model.get_base_model()
        self._now: int | None = None

    def ready(self, tenants: Sequence[int | None]) -> Forward:
        """The model with the one tenant switched on, or all switched off for the base."""
        if (wanted := tenants[0]) is None:
            return _without_adapter(self.model)
        if wanted != self._now:
            self.model.set_adapter(adapter_name(wanted))
            self._now = wanted
        forward: Forward = self.model.forward
        return forward

    def loading(self, folder: Path) -> Callable[[], object]:
        """An adapter in PEFT's format, by PEFT."""
        self.model.save_pretrained(str(folder), selected_adapters=[adapter_name(0)], save_embedding_layers=False)

        def read() -> None:
            self.model.load_adapter(str(folder / adapter_name(0)), "coming")
            self.model.delete_adapter("coming")

        return read

    @property
    def base_bytes(self) -> int:
        """All but the adapters."""
        return weights_bytes(self.network) - self.tenants_bytes

    @property
    def tenants_bytes(self) -> int:
        """The adapters."""
        return storage_bytes(p for name, p in self.model.named_parameters() if ".lora_" in name)


def _without_adapter(model: PeftModel) -> Forward:
    def forward(**inputs: object) -> object:
        with model.disable_adapter():
            return model.get_base_model()(**inputs)

    return forward


class PeftMixed(Strategy):
    """PEFT's batch of several adapters: in each layer, a loop over those that are there."""

    def __init__(self, model: PeftModel, name: str = "PEFT's mixed batch") -> None:
        self.name, self.method, self.model = name, "lora", model
        self.network = model.get_base_model()

    def ready(self, tenants: Sequence[int | None]) -> Forward:
        """The model, told whose rows come."""
        names = ["__base__" if tenant is None else adapter_name(tenant) for tenant in tenants]
        return partial(self.model.forward, adapter_names=names)

    loading = OneAdapter.loading
    base_bytes = OneAdapter.base_bytes
    tenants_bytes = OneAdapter.tenants_bytes


def adapter_name(place: int) -> str:
    """PEFT's name of the tenant at ``place``."""
    return f"tenant{place}"


@torch.no_grad()
def peft_model(network: nn.Module, tenants: Sequence[Tenant]) -> PeftModel:
    """A twin of ``network`` in PEFT, with a LoRA adapter for each tenant; raises InputError for other tenants."""
    model: PeftModel | None = None
    for place, tenant in enumerate(tenants):
        if not tenant.low_rank:
            raise InputError(f"tenant '{tenant.name}': {tenant.method} is no LoRA; valid: tenants with LoRA")
        ranks = {layer: part.down.shape[1] for layer, part in tenant.low_rank.items()}
        config = LoraConfig(
            task_type="CAUSAL_LM",
            target_modules=sorted(ranks),
            r=max(ranks.values()),
            lora_alpha=max(ranks.values()),  # the scale is in the matrices
            rank_pattern={layer: rank for layer, rank in ranks.items() if rank != max(ranks.values())},
            alpha_pattern={layer: rank for layer, rank in ranks.items() if rank != max(ranks.values())},
        )
        if model is None:
            model = get_peft_model(twin(network), config, adapter_name=adapter_name(place))
        else:
            model.add_adapter(adapter_name(place), config)
        layers = dict(model.get_base_model().named_modules())
        for layer, part in tenant.low_rank.items():
            layers[layer].lora_A[adapter_name(place)].weight.copy_(part.down.T)
            layers[layer].lora_B[adapter_name(place)].weight.copy_(part.up.T)
    if model is None:
        raise InputError("tenants: there is none; valid: at least one")
    dtype = next(p.dtype for p in network.parameters() if p.is_floating_point())
    for name, parameter in model.named_parameters():
        if ".lora_" in name:
            parameter.data = parameter.data.to(dtype)
    return model.eval().requires_grad_(False)


class Batched(Strategy):
    """All rows in one pass, whatever their tenants add to the base: :class:`harness.serving.mixed.Mixed`."""

    def __init__(self, network: nn.Module, tenants: Sequence[Tenant], name: str) -> None:
        self.name, self.mixed = name, Mixed(network, tenants)
        methods = list(dict.fromkeys(tenant.method for tenant in tenants))
        self.method = methods[0] if len(methods) == 1 else "mixed"
        self.network = self.mixed.network
        self._base_bytes = weights_bytes(network)
        self._first = tenants[0]

    def loading(self, folder: Path) -> Callable[[], object]:
        """The tensors of a tenant, into the stacks."""
        return _reading(self, self._first, folder)

    def ready(self, tenants: Sequence[int | None]) -> Forward:
        """The network, told whose rows come."""
        self.mixed.choose(tenants)
        forward: Forward = self.network.forward
        return forward

    def prefixes(self, tenants: Sequence[int | None]) -> tuple[Tensor, Tensor] | None:
        """Those of the rows' tenants."""
        return self.mixed.prefixes(tenants)

    def prompts(self, tenants: Sequence[int | None]) -> tuple[Tensor, Tensor] | None:
        """Those of the rows' tenants."""
        return self.mixed.prompts(tenants)

    def replace(self, place: int, tenant: Tenant) -> None:
        """Another tenant of the same shapes."""
        self.mixed.replace(place, tenant)

    def forget(self) -> None:
        """Drop what was gathered for the rows of a batch."""
        self.mixed.forget()

    @property
    def base_bytes(self) -> int:
        """The base, once."""
        return self._base_bytes

    @property
    def tenants_bytes(self) -> int:
        """The stacks, the virtual tokens, and what is gathered for the batch that is served."""
        return self.mixed.tenants_bytes
