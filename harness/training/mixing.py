"""Training on several instruction sets: how many examples of each, and in which order."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import TypeVar

T = TypeVar("T")


def proportions(sizes: Mapping[str, int], total: int, cap: int | None = None) -> dict[str, int]:
    r"""Examples of each set among ``total``: in proportion to its size, of which at most ``cap`` counts.

    :math:`n_i = N \min(e_i, K) / \sum_j \min(e_j, K)` (examples-proportional mixing, Raffel et al. 2020,
    arXiv:1910.10683, section 3.5.2), rounded by largest remainders so that the sum is ``total``.
    """
    counted = {name: min(size, cap or size) for name, size in sizes.items()}
    exact = {name: total * count / sum(counted.values()) for name, count in counted.items()}
    taken = {name: int(share) for name, share in exact.items()}
    left = total - sum(taken.values())
    for name in sorted(exact, key=lambda n: (taken[n] - exact[n], n))[:left]:
        taken[name] += 1
    return taken


def mix(sets: Mapping[str, Sequence[T]], total: int, cap: int | None = None, staged: bool = False) -> list[T]:
    """``total`` examples of the sets by :func:`proportions`; a set that is too small is repeated.

    ``staged`` puts one set after the other in the given order, for training in stages; otherwise they alternate as
    evenly as their numbers allow.
    """
    counts = proportions({name: len(examples) for name, examples in sets.items()}, total, cap)
    drawn = [
        (name, (position + 0.5) / counts[name], example)
        for name, examples in sets.items()
        for position, example in enumerate(itertools.islice(itertools.cycle(examples), counts[name]))
    ]
    return [example for _, _, example in (drawn if staged else sorted(drawn, key=lambda entry: entry[1]))]
