"""Where one strategy overtakes another as tenants grow in number, in words that follow from the rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pandas as pd

#: Strategy, the one that it is held against, and what is compared.
PAIRS = (
    ("batched LoRA", "copies"),
    ("batched LoRA", "merged, swapped"),
    ("batched LoRA", "unmerged, one at a time"),
    ("batched LoRA", "PEFT's mixed batch"),
    ("batched BitDelta", "copies"),
    ("batched BitDelta", "batched LoRA"),
    ("merged, swapped", "copies"),
    ("unmerged, one at a time", "copies"),
    ("unmerged, one at a time", "merged, swapped"),
)


@dataclass(frozen=True)
class Quantity:
    """What is compared."""

    phase: str
    column: str
    what: str
    text: Callable[[float], str]


QUANTITIES = (
    Quantity("decode", "p50_s", "time for a decoding step", lambda value: f"{1e3 * value:,.0f} ms"),
    Quantity("decode", "memory_bytes", "memory", lambda value: f"{value / 1e9:.2f} GB"),
)


def sentences(rows: pd.DataFrame) -> Iterator[str]:
    """One sentence for each pair and quantity that the table ``serving`` has, of one request for each tenant.

    Only strategies of one trial are compared, which ran in turn; several trials give their median. Where others used
    the machine, the last sentence says so.
    """
    each = rows[(rows.popularity == "distinct") & (rows.batch_size == rows.tenants)]
    for one, other in PAIRS:
        for quantity in QUANTITIES:
            wide = each[each.phase == quantity.phase].pivot_table(
                index=["trial_id", "tenants"], columns="strategy", values=quantity.column, aggfunc="median"
            )
            if one in wide and other in wide and len(both := wide[[one, other]].dropna()):
                yield _sentence(both.groupby("tenants").median(), one, other, quantity)
    if each.disturbed.astype("boolean").fillna(False).any():
        yield "Other work used the machine meanwhile; the strategies ran in turn, so read the ratios, not the times."


def _sentence(both: pd.DataFrame, one: str, other: str, quantity: Quantity) -> str:
    fewest, most = both.index[0], both.index[-1]
    last = _last(both, one, other, quantity)
    measured = _tenants(most) if fewest == most else f"{fewest} to {_tenants(most)}"
    if (both[one] == both[other]).all():
        return f"{one} and {other} need the same {quantity.what} ({measured}): {last}."
    for less, more in ((one, other), (other, one)):
        first = _overtakes(both[less] < both[more])
        if first == fewest:
            seen = "there is no range to cross in" if fewest == most else "a crossing is not seen in this range"
            return (
                f"{less} needs less {quantity.what} than {more} at all numbers measured ({measured}; {seen}): "
                f"{_last(both, less, more, quantity)}."
            )
        if first is not None:
            before = both.index[both.index < first][-1]
            return (
                f"From {_tenants(first)} on, {less} needs less {quantity.what} than {more} (not with "
                f"{_tenants(before)}): {_last(both, less, more, quantity)}."
            )
    return f"{one} and {other} need the same {quantity.what} at the last number, but not at all ({measured}): {last}."


def _overtakes(less: pd.Series) -> int | None:
    """The number of tenants from which on ``less`` holds; None where it does not hold at the last."""
    return next((count for count in less.index if less.loc[count:].all()), None)


def _last(both: pd.DataFrame, one: str, other: str, quantity: Quantity) -> str:
    end = both.iloc[-1]
    return f"{quantity.text(end[one])} against {quantity.text(end[other])} with {_tenants(both.index[-1])}"


def _tenants(count: int) -> str:
    return "1 tenant" if count == 1 else f"{count} tenants"
