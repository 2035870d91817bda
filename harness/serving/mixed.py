"""A base network that serves rows of different tenants in one pass: whatever each of them adds, row by row."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from harness.measure.memory import storage_bytes
from harness.serving.low_ranks import LowRanks
from harness.serving.routing import route
from harness.serving.siblings import read_together
from harness.serving.stacks import Bottlenecks, OneBits, Place, Shifts, Stack
from harness.serving.tenant import Tenant

#: Kind of change -> its stack, in the order in which they act on a layer: an adapter reads what the others leave.
_STACKS: dict[str, type[Any]] = {
    "low_rank": LowRanks,
    "one_bit": OneBits,
    "shift": Shifts,
    "bottleneck": Bottlenecks,
}


def twin(network: nn.Module) -> nn.Module:
    """A second network on the same weights: modules and hooks of its own, no bytes."""
    tensors = [*network.parameters(), *network.buffers()]
    # bitsandbytes keeps the scales of a weight beside it.
    states = [state for p in tensors if (state := getattr(p, "quant_state", None)) is not None]
    return copy.deepcopy(network, {id(shared): shared for shared in (*tensors, *states)})


class Mixed:
    """A twin of ``network`` with ``tenants``, which go by their places in that order; None is the base itself."""

    def __init__(self, network: nn.Module, tenants: Sequence[Tenant]) -> None:
        self.network = twin(network)
        self._like = like = next(p for p in network.parameters() if p.is_floating_point())
        # The other tensors of a tenant live in the stacks alone.
        self._prefix = [_as(like, tenant.prefix) for tenant in tenants]
        self._prompt = [_as(like, tenant.prompt) for tenant in tenants]
        self._places: dict[str, Place] = {}
        self._stacks: dict[tuple[str, str], Stack[Any]] = {}
        changed = [layer for kind in _STACKS for tenant in tenants for layer in getattr(tenant, kind)]
        groups = read_together(self.network, list(dict.fromkeys(changed)))
        for kind in _STACKS:
            members = [place for place, tenant in enumerate(tenants) if getattr(tenant, kind)]
            self._places[kind] = Place({tenant: slot for slot, tenant in enumerate(members)})
            self._stack(kind, [getattr(tenants[member], kind) for member in members], groups)

    def _stack(self, kind: str, parts: Sequence[Mapping[str, Any]], groups: Sequence[Sequence[str]]) -> None:
        """Hook what ``parts``, one for each tenant of a kind, add to the layers that stand in ``groups``."""
        changed = {layer for part in parts for layer in part}
        for group in groups:
            if own := [layer for layer in group if layer in changed]:
                of_layers = [[part.get(layer) for part in parts] for layer in own]
                stacks = _STACKS[kind].side_by_side(self._places[kind], of_layers, self._like)
                for layer, stack in zip(own, stacks, strict=True):
                    self.network.get_submodule(layer).register_forward_hook(stack)
                    self._stacks[kind, layer] = stack

    def choose(self, tenants: Sequence[int | None]) -> None:
        """The rows of the next passes belong to these tenants."""
        for place in self._places.values():
            slots = [None if tenant is None else place.slots.get(tenant) for tenant in tenants]
            place.route = route(slots, self._like.device)

    def replace(self, place: int, tenant: Tenant) -> None:
        """Put another tenant of the same kinds and shapes into ``place``."""
        self._prefix[place], self._prompt[place] = (_as(self._like, own) for own in (tenant.prefix, tenant.prompt))
        for (kind, layer), stack in self._stacks.items():
            if (slot := self._places[kind].slots.get(place)) is not None:
                stack.put(slot, getattr(tenant, kind).get(layer))
        self.forget()  # what was gathered is the tenant before

    def forget(self) -> None:
        """Drop what belongs to the batch that has been served."""
        for stack in self._stacks.values():
            stack.forget()

    @property
    def tenants_bytes(self) -> int:
        """Bytes that the tenants take now, the copies for a batch included."""
        return storage_bytes(self._held())

    def _held(self) -> Iterator[Tensor]:
        for stack in self._stacks.values():
            yield from stack.held()
        yield from (vector for vector in (*self._prefix, *self._prompt) if vector is not None)

    def prefixes(self, tenants: Sequence[int | None]) -> tuple[Tensor, Tensor] | None:
        """Keys and values (layers, 2, rows, heads, longest prefix, size) of these rows, and which are real.

        The mask has shape (rows, longest prefix). None without prefixes.
        """
        return _padded(self._like, [None if t is None else self._prefix[t] for t in tenants], row_dim=2)

    def prompts(self, tenants: Sequence[int | None]) -> tuple[Tensor, Tensor] | None:
        """Embeddings (rows, longest prompt, width) of these rows, and which are real (rows, longest prompt).

        None without prompts.
        """
        return _padded(self._like, [None if t is None else self._prompt[t] for t in tenants], row_dim=0)


def _as(like: Tensor, own: Tensor | None) -> Tensor | None:
    return None if own is None else own.to(like)


def _padded(like: Tensor, own: Sequence[Tensor | None], row_dim: int) -> tuple[Tensor, Tensor] | None:
    """Virtual tokens (..., tokens, size) of every row, shorter ones at the end, and their mask (rows, longest)."""
    longest = max((tokens.shape[-2] for tokens in own if tokens is not None), default=0)
    if longest == 0:
        return None
    shape = next(tokens.shape for tokens in own if tokens is not None)
    block = like.new_zeros(len(own), *shape[:-2], longest, shape[-1])
    mask = torch.zeros(len(own), longest, dtype=torch.long, device=like.device)
    for row, tokens in enumerate(own):
        if tokens is not None:
            block[row, ..., longest - tokens.shape[-2] :, :] = tokens
            mask[row, longest - tokens.shape[-2] :] = 1
    return block.movedim(0, row_dim), mask
