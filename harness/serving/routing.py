"""Which rows of a batch belong to which tenant, in the order in which stacks of tensors want them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor

#: Tokens of a run from which one product for each run beats one matrix for each row.
TOKENS_OF_A_RUN = 32


@dataclass(frozen=True)
class Route:
    """The rows that one kind of change touches, those of one tenant side by side: a run."""

    batch: int
    """Rows in all."""
    rows: Tensor | None
    """(touched,) places in the batch; None: all, in their order."""
    slots: tuple[int, ...]
    """The tenant's place in the stacks, for each touched row."""
    index: Tensor
    """The same as a tensor."""
    runs: tuple[tuple[int, int, int], ...]
    """Slot, first touched row and the one behind the last, for each tenant that is there."""

    def take(self, x: Tensor) -> Tensor:
        """The touched rows of ``x`` (rows, tokens, ..., width), run by run.

        Raises RuntimeError for a layer that sees no rows, such as an expert, which sees the tokens that chose it.
        """
        if x.dim() < 3 or x.shape[0] != self.batch:
            raise RuntimeError(f"{self.batch} rows of tokens are needed, and this layer reads {tuple(x.shape)}")
        return x if self.rows is None else x.index_select(0, self.rows)

    def add(self, output: Tensor, change: Tensor) -> Tensor:
        """Add to the touched rows of ``output``, in place: the others keep every bit."""
        return output.add_(change) if self.rows is None else output.index_add_(0, self.rows, change)

    def add_product(self, output: Tensor, x: Tensor, matrices: Tensor) -> Tensor:
        """Add ``x`` (touched, tokens, width) times ``matrices`` (touched, width, outputs), as :meth:`add` does."""
        if self.rows is None:
            return output.baddbmm_(x, matrices)
        return output.index_add_(0, self.rows, torch.bmm(x, matrices))

    def by_runs(self, tokens: int) -> bool:
        """Whether one product for each run is faster than one matrix for each row, with ``tokens`` in a row."""
        return len(self.runs) == 1 or tokens * len(self.slots) >= TOKENS_OF_A_RUN * len(self.runs)


def route(slots: Sequence[int | None], device: torch.device) -> Route | None:
    """The route of a batch whose rows have these ``slots``; None stands for a row that stays as it is.

    None as a whole where no row is touched.
    """
    touched = sorted((slot, row) for row, slot in enumerate(slots) if slot is not None)
    if not touched:
        return None
    ordered = tuple(slot for slot, _ in touched)
    rows = [row for _, row in touched]
    runs, start = [], 0
    for slot, members in groupby(ordered):
        stop = start + len(list(members))
        runs.append((slot, start, stop))
        start = stop
    return Route(
        batch=len(slots),
        rows=None if rows == list(range(len(slots))) else torch.tensor(rows, device=device),
        slots=ordered,
        index=torch.tensor(ordered, device=device),
        runs=tuple(runs),
    )
