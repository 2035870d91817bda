"""Which tenant each request of a batch belongs to (the four popularities of Punica, arXiv:2310.18547, section 7)."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np

from harness.errors import unknown

Popularity = Literal["distinct", "uniform", "zipf", "identical"]
#: The k-th most popular tenant is asked for in proportion to k to the power of minus this, as in Punica.
ZIPF_EXPONENT = 1.5


def tenants_of(popularity: Popularity, tenants: int, requests: int, seed: int = 0) -> list[int]:
    """The tenant of each request, from 0 to ``tenants`` - 1.

    ``distinct``: in turn, so all different while there are no more requests than tenants. ``uniform``: drawn, each with
    the same probability. ``zipf``: drawn, by Zipf's law. ``identical``: the first one alone. Raises
    :class:`harness.errors.InputError` for another popularity.
    """
    if popularity not in get_args(Popularity):
        raise unknown("popularity", popularity, get_args(Popularity))
    if popularity == "distinct":
        return [place % tenants for place in range(requests)]
    if popularity == "identical":
        return [0] * requests
    ranks = np.arange(1, tenants + 1, dtype=float)
    weights = np.ones(tenants) if popularity == "uniform" else ranks**-ZIPF_EXPONENT
    drawn = np.random.default_rng(seed).choice(tenants, size=requests, p=weights / weights.sum())
    return [int(place) for place in drawn]
