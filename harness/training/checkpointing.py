"""Gradient checkpointing (Chen et al. 2016, arXiv:1604.06174): layers keep their inputs and are computed again."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from functools import partial

from harness.execution import NotActive
from harness.measure.flops import repeating
from harness.networks.structure import unwrapped
from harness.networks.tuned import Tuned

#: The kind of a layer that is computed again, for :func:`harness.measure.flops.repeating`.
LAYER = "layer"


@contextlib.contextmanager
def checkpointing(tuned: Tuned, wanted: bool) -> Iterator[None]:
    """Within the block every layer is checkpointed in training, if that is ``wanted``.

    Raises :class:`harness.execution.NotActive` for a network that cannot.
    """
    if not wanted:
        yield
        return
    network = unwrapped(tuned.model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # the name changes in transformers 6
        try:
            network.gradient_checkpointing_enable({"use_reentrant": False, "context_fn": partial(repeating, LAYER)})
        except ValueError as error:
            raise NotActive(f"execution.gradient_checkpointing: {str(error).splitlines()[0]}") from error
        try:
            yield
        finally:
            network.gradient_checkpointing_disable()
