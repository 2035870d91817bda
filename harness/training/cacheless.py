"""Training without the cache of keys and values, which a decoder fills unless it is told not to."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from harness.networks.structure import unwrapped
from harness.networks.tuned import Tuned


@contextlib.contextmanager
def cacheless(tuned: Tuned) -> Iterator[None]:
    """Within the block passes remember no keys and values.

    transformers' trainer switches the cache off when it is made. What comes before, probes and compilation, must see
    the passes that training makes: with a cache each layer has a graph of its own, and none fits what is trained.
    """
    network = unwrapped(tuned.model)
    if not hasattr(network.config, "use_cache"):
        yield
        return
    usual, network.config.use_cache = network.config.use_cache, False
    try:
        yield
    finally:
        network.config.use_cache = usual
