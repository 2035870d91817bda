"""Which examples a step sees: a new order in each epoch, in batches of similar lengths, so that little is padding.

The order follows from the seed, the lengths and the size of a batch, and from nothing that a method chooses: every
method sees the same examples in the same steps (protocol, rule 1).

It is not for tasks whose answer is one of a few. Where spam is longer than other messages, batches of one length are
batches of one label: each step then unlearns what the one before taught. Of nine settings of LoRA, adapters and BitFit
on ``sms_spam``, eight ended at the commonest label so, and two with batches drawn at random, which such tasks get.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch.utils.data import Sampler

#: Batches whose examples are sorted together. More of them leave less padding, and fix more of what shares a step.
SORTED_TOGETHER = 8


class SimilarLengths(Sampler[int]):
    """Indices of examples, to be cut into batches of ``batch_size``.

    An epoch is shuffled; every :data:`SORTED_TOGETHER` batches of it are sorted by length and cut into batches; then
    the batches are shuffled. Only an incomplete batch stays at the end. transformers' ``LengthGroupedSampler`` leaves
    the long batches in front, where the learning rate is another.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int) -> None:
        self._lengths = lengths
        self._size = batch_size
        self._generator = torch.Generator().manual_seed(seed)

    def __len__(self) -> int:
        return len(self._lengths)

    def __iter__(self) -> Iterator[int]:
        order = self._permuted(len(self._lengths))
        together = SORTED_TOGETHER * self._size
        # The examples of an incomplete batch are left to chance before any are sorted, else they would be the longest.
        whole = len(order) // self._size * self._size
        batches = [
            batch
            for start in range(0, whole, together)
            for batch in self._batches(order[start : min(start + together, whole)])
        ]
        for place in self._permuted(len(batches)):
            yield from batches[place]
        yield from order[whole:]

    def _batches(self, indices: Sequence[int]) -> list[list[int]]:
        by_length = sorted(indices, key=self._lengths.__getitem__)
        return [by_length[start : start + self._size] for start in range(0, len(by_length), self._size)]

    def _permuted(self, count: int) -> list[int]:
        permuted: list[int] = torch.randperm(count, generator=self._generator).tolist()
        return permuted
