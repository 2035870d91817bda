"""A batch of requests, greedily answered by a strategy: its passes, what each pass remembers, and its clock."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache

from harness.measure.environment import synchronize
from harness.measure.memory import storage_bytes

#: From ``input_ids`` or ``inputs_embeds`` and the rest of a decoder's inputs to its output with ``logits``.
Forward = Callable[..., Any]


class Strategy:
    """A way to serve tenants, who go by their places; None is the untouched base. Subclasses say what differs."""

    name: str
    """What tables call it."""
    method: str
    """The method of its tenants."""
    network: nn.Module
    """The network that a pass runs, or one like it."""

    def passes(self, tenants: Sequence[int | None]) -> list[list[int]]:
        """The rows of a batch with these ``tenants`` that are served together: all of them."""
        return [list(range(len(tenants)))]

    def ready(self, tenants: Sequence[int | None]) -> Forward:
        """What to call for the rows of one pass, once the network is ready for their tenants."""
        raise NotImplementedError

    def prefixes(self, tenants: Sequence[int | None]) -> tuple[Tensor, Tensor] | None:
        """Keys and values before the text, and their mask; see :meth:`harness.serving.mixed.Mixed.prefixes`."""
        return None

    def prompts(self, tenants: Sequence[int | None]) -> tuple[Tensor, Tensor] | None:
        """Embeddings before the text, and their mask."""
        return None

    @property
    def base_bytes(self) -> int:
        """Bytes of weights that all tenants share."""
        raise NotImplementedError

    @property
    def tenants_bytes(self) -> int:
        """Bytes of weights that belong to single tenants, or to the batch that is served."""
        raise NotImplementedError

    def forget(self) -> None:
        """Drop what was held for the last batch."""

    def loading(self, folder: Path) -> Callable[[], object] | None:
        """Write the first tenant into ``folder``; returns the act that reads it from there into its place.

        None where there are no tenants.
        """
        return None


class OneByOne(Strategy):
    """A strategy that serves the rows of one tenant at a time, tenant after tenant, each to its last token."""

    def passes(self, tenants: Sequence[int | None]) -> list[list[int]]:
        """The rows of each tenant, in the order in which tenants first appear."""
        rows: dict[int | None, list[int]] = {}
        for row, tenant in enumerate(tenants):
            rows.setdefault(tenant, []).append(row)
        return list(rows.values())


@dataclass
class Pass:
    """The rows of one pass after their prompts: what the next step needs."""

    forward: Forward
    cache: DynamicCache
    mask: Tensor
    """(rows, remembered): 1 where there is something to attend to."""
    position: Tensor
    """(rows, 1): of the last token."""
    logits: Tensor
    """(rows, vocabulary): of the next token."""
    virtual: int
    """Virtual tokens before the text, those of the longest prefix and prompt."""
    plain: bool
    """Whether everything that is remembered is attended to, so that no mask is needed."""

    @torch.inference_mode()
    def step(self, tokens: Tensor) -> None:
        """Read one further token of each row, (rows,)."""
        self.mask = torch.cat([self.mask, self.mask.new_ones(len(tokens), 1)], 1)
        self.position = self.position + 1
        out = self.forward(
            input_ids=tokens.unsqueeze(1),
            attention_mask=None if self.plain else self.mask,
            position_ids=self.position,
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1,
        )
        self.logits = out.logits[:, -1]

    def tensors(self) -> Iterator[Tensor]:
        """Keys and values."""
        for layer in self.cache.layers:
            yield from (layer.keys, layer.values)

    @property
    def virtual_bytes(self) -> int:
        """Of the keys and values, those of virtual tokens."""
        return int(storage_bytes(self.tensors()) * self.virtual // self.mask.shape[1])


@torch.inference_mode()
def begin(
    strategy: Strategy,
    tenants: Sequence[int | None],
    ids: Tensor,
    mask: Tensor | None = None,
    forward: Forward | None = None,
) -> Pass:
    """Read the prompts ``ids`` (rows, tokens) of one pass; ``mask`` is 0 at the padding on their left.

    ``forward`` is what ``strategy.ready`` gave for these tenants; None: it is asked now.

    Prefixes and prompts of different length stand before the text; positions count what is real, so every row sees
    what it would see alone.
    """
    forward = forward or strategy.ready(tenants)
    mask = torch.ones_like(ids) if mask is None else mask
    texts: dict[str, Any] = {"input_ids": ids}
    if (prompts := strategy.prompts(tenants)) is not None:
        embedded = strategy.network.get_input_embeddings()(ids)
        texts = {"inputs_embeds": torch.cat([prompts[0], embedded], 1)}
        mask = torch.cat([prompts[1], mask], 1)
    read = mask.shape[1]
    cache = DynamicCache(config=strategy.network.config)
    if (prefixes := strategy.prefixes(tenants)) is not None:
        for number, (keys, values) in enumerate(prefixes[0]):
            cache.update(keys, values, number)
        mask = torch.cat([prefixes[1], mask], 1)
    places = (mask.cumsum(1) - 1).clamp(min=0)
    plain = bool(mask.all())
    out = forward(
        **texts,
        # With something remembered but no mask, a decoder of transformers still knows what comes first.
        attention_mask=None if plain and prefixes is None else mask,
        position_ids=places[:, -read:],
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    )
    return Pass(forward, cache, mask, places[:, -1:], out.logits[:, -1], mask.shape[1] - ids.shape[1], plain)


@dataclass
class Served:
    """A batch that has been answered."""

    tokens: Tensor
    """(rows, new tokens)"""
    prefill_s: float
    """Until every request has its first token: all passes, with whatever made the network ready for each."""
    swap_s: list[float] = field(default_factory=list)
    """The time to make the network ready for a pass, once for each."""
    steps_s: list[float] = field(default_factory=list)
    """Seconds until every request has one token more, for each token behind the first: the sum over the passes."""
    cache_bytes: int = 0
    """Keys and values of all requests behind the last token, virtual tokens included."""
    virtual_cache_bytes: int = 0
    """Those of virtual tokens among them."""
    tenants_bytes: int = 0
    """What belonged to single tenants, or to this batch, while it was served."""


def serve(
    strategy: Strategy, tenants: Sequence[int | None], ids: Tensor, new_tokens: int, mask: Tensor | None = None
) -> Served:
    """Answer the requests ``ids`` of ``tenants`` greedily with ``new_tokens`` each, and time it.

    Passes follow one another, as in a server that answers all waiting requests of one tenant before it turns to the
    next. The caches of all passes stay until the end: a request that waits has been read.
    """
    done = Served(ids.new_zeros(len(ids), new_tokens), 0.0, steps_s=[0.0] * (new_tokens - 1))
    held: list[Tensor] = []
    for rows in strategy.passes(tenants):
        own = [tenants[row] for row in rows]
        place = torch.tensor(rows, device=ids.device)
        synchronize(ids.device)
        start = time.perf_counter()
        forward = strategy.ready(own)
        synchronize(ids.device)
        done.swap_s.append(time.perf_counter() - start)
        start = time.perf_counter()
        running = begin(strategy, own, ids[place], None if mask is None else mask[place], forward)
        answers = [running.logits.argmax(-1)]
        synchronize(ids.device)
        done.prefill_s += done.swap_s[-1] + time.perf_counter() - start
        for number in range(new_tokens - 1):
            start = time.perf_counter()
            running.step(answers[-1])
            answers.append(running.logits.argmax(-1))
            synchronize(ids.device)
            done.steps_s[number] += time.perf_counter() - start
        done.tokens[place] = torch.stack(answers, 1)
        held += running.tensors()
        done.virtual_cache_bytes += running.virtual_bytes
    done.cache_bytes, done.tenants_bytes = storage_bytes(held), strategy.tenants_bytes
    strategy.forget()
    return done
