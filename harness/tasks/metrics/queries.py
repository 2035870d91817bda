"""Metrics of queries of SQL; :mod:`harness.tasks.sql` says when two are equal and how one is run."""

from __future__ import annotations

from collections.abc import Sequence

from harness.tasks import sql
from harness.tasks.metrics.scoring import Predictions, References, Statistics, mean


def logical_form(predictions: Predictions, references: References) -> Statistics:
    """The share of queries that say the same as a reference."""
    pairs = zip(predictions, references, strict=True)
    return mean([sql.logical_form(p) in {sql.logical_form(r) for r in rs} for p, rs in pairs])


def sql_execution(
    predictions: Predictions, references: References, *, databases: Sequence[str] | None = None
) -> Statistics:
    """The share of queries that answer as a reference does in the example's database (without one: in an empty one).

    A query equal to a reference is right, also where neither runs.
    """
    of_each = databases or [""] * len(predictions)
    return mean(
        [
            p in rs or any(sql.same_answer(p, r, database) for r in rs)
            for p, rs, database in zip(predictions, references, of_each, strict=True)
        ]
    )
