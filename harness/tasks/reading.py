"""Read prompts once, and go on from there: their keys and values stay, and so does what all prompts begin with.

The prompts of a task share their beginning: a chat template, an instruction, solved examples. It is read once for all
of them. Logits are computed only where they are asked for.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.functional import pad
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from harness.networks.structure import unwrapped
from harness.tasks.logprobs import logits_at, padded

if TYPE_CHECKING:
    from harness.networks.tuned import Tuned

Ids = Sequence[int]

#: Tokens that prompts must share for their beginning to be worth a pass of its own.
_WORTH_SHARING = 8


class Reader:
    """Reads batches of ``prompts`` with a decoder that keeps keys and values."""

    def __init__(self, tuned: Tuned, prompts: Sequence[Ids]) -> None:
        self._tuned = tuned
        self._shared: Ids = ()
        self._cache: DynamicCache | None = None
        if tuned.base.reads_apart or len(prompts) < 2:
            return
        alike = sum(1 for _ in itertools.takewhile(lambda tokens: len(set(tokens)) == 1, zip(*prompts, strict=False)))
        # Every prompt keeps a token of its own, for its next one to be predicted from.
        common = min(alike, min(map(len, prompts)) - 1)
        if common >= _WORTH_SHARING:
            self._shared = tuple(prompts[0][:common])

    @torch.no_grad()
    def read(self, prompts: Sequence[Ids]) -> tuple[Read, torch.Tensor] | None:
        """The prompts, read side by side, and the logits of each next token, of shape (prompts, vocabulary).

        None for an encoder-decoder, and for a model that keeps something else than keys and values.
        """
        tuned, shared = self._tuned, len(self._shared)
        if tuned.base.reads_apart:
            return None
        ids, mask = padded(
            [prompt[shared:] for prompt in prompts], tuned.base.tokenizer.pad_token_id, tuned.base.device
        )
        every, last = torch.arange(len(ids), device=ids.device), mask.sum(-1) - 1
        if shared:
            cache = self._beginning()
            if cache is None:
                return None
            cache.batch_select_indices(torch.zeros_like(every))
            read = Read(tuned, cache, mask.new_ones(len(ids), cache.get_seq_length()))
            return read, read.further(ids, mask, every, last)
        # Counted from the end, because soft prompts stand in front.
        with logits_at(tuned.model, every, last - ids.shape[1]):
            output = tuned.model(input_ids=ids, attention_mask=mask, use_cache=True)
        cache = _keys_and_values(output)
        if cache is None:
            return None
        virtual = mask.new_ones(len(ids), cache.get_seq_length() - ids.shape[1])
        return Read(tuned, cache, torch.cat([virtual, mask], dim=1)), output.logits

    def _beginning(self) -> DynamicCache | None:
        """A copy of the keys and values of what all prompts begin with, read at the first call."""
        if self._cache is None:
            ids = torch.tensor([self._shared], device=self._tuned.base.device)
            first = torch.zeros(1, dtype=torch.long, device=ids.device)
            with logits_at(self._tuned.model, first, first - 1):
                output = self._tuned.model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=True)
            self._cache = _keys_and_values(output)
        return copy.deepcopy(self._cache)


def _keys_and_values(output: Any) -> DynamicCache | None:
    """The cache of a forward pass; None if it holds anything else, such as a state that padding would change."""
    cache = getattr(output, "past_key_values", None)
    if not isinstance(cache, DynamicCache):
        return None
    # Layers of hybrid models are subclasses that hold a recurrent state as well.
    plain = all(
        type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) and layer.is_initialized for layer in cache.layers
    )
    return cache if plain else None


class Read:
    """Texts that a decoder has read so far, one in each row, with padding anywhere but in front."""

    def __init__(self, tuned: Tuned, cache: DynamicCache, mask: torch.Tensor) -> None:
        # PEFT would put its virtual tokens in front again.
        self._network = unwrapped(tuned.model)
        self._cache = cache
        self._mask = mask

    @property
    def width(self) -> int:
        """Places in each row, padding and virtual tokens included."""
        return int(self._mask.shape[1])

    def keep(self, rows: torch.Tensor) -> None:
        """Go on with these rows alone, in this order; a row may stand there several times."""
        self._cache.batch_select_indices(rows)
        self._mask = self._mask[rows]

    def join(self, others: Sequence[Read], room: int) -> None:
        """Go on with the rows of ``others`` as well, behind one's own, for ``room`` tokens that are copied once.

        No sliding window may have dropped a token, nor drop one of those.
        """
        reads = [self, *others]
        width = max(read.width for read in reads)
        layers = zip(*(read._cache.layers for read in reads), strict=True)
        self._cache.layers = [_Roomy(several, width, room) for several in layers]
        self._mask = torch.cat([pad(read._mask, (0, width - read.width)) for read in reads])

    @torch.no_grad()
    def further(self, ids: torch.Tensor, mask: torch.Tensor, rows: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        """Read ``ids`` behind what was read, both (rows, width); logits at these positions of them alone.

        Of shape (positions, vocabulary). ``mask`` is 1 where a token is none of the padding behind a row's own.
        """
        start = self._mask.sum(-1, keepdim=True)
        self._mask = torch.cat([self._mask, mask], dim=1)
        with logits_at(self._network, rows, places):
            output = self._network(
                input_ids=ids,
                attention_mask=self._mask,
                position_ids=start + torch.arange(ids.shape[1], device=ids.device),
                past_key_values=self._cache,
                use_cache=True,
            )
        logits: torch.Tensor = output.logits
        return logits


class _Roomy(DynamicLayer):
    """Keys and values of one layer with room behind them.

    transformers' own layer copies all of them for each token that is added, which for many short answers costs more
    than their attention.
    """

    def __init__(self, layers: Sequence[DynamicLayer], width: int, room: int) -> None:
        """The rows of ``layers``, each ``width`` tokens long, with ``room`` for more."""
        super().__init__()
        self.dtype, self.device, self.is_initialized = layers[0].dtype, layers[0].device, True
        self._whole = [
            torch.cat([pad(states, (0, 0, 0, width + room - states.shape[-2])) for states in several])
            for several in zip(*((layer.keys, layer.values) for layer in layers), strict=True)
        ]
        self._show(width)

    def _show(self, length: int) -> None:
        self.keys, self.values = (states[:, :, :length] for states in self._whole)

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Add these, of shape (rows, heads, tokens, size); gives all of them."""
        start, end = self.get_seq_length(), self.get_seq_length() + key_states.shape[-2]
        for states, added in zip(self._whole, (key_states, value_states), strict=True):
            states[:, :, start:end] = added
        self._show(end)
        return self.keys, self.values

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """Keep these rows alone."""
        length = self.get_seq_length()
        self._whole = [states[indices] for states in self._whole]
        self._show(length)
