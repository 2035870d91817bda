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
    less = both[one] < both[other]
    fewest, most = both.index[0], both.index[-1]
    last = f"{quantity.text(both[one].iloc[-1])} against {quantity.text(both[other].iloc[-1])} with {_tenants(most)}"
    measured = _tenants(most) if fewest == most else f"{fewest} to {_tenants(most)}"
    if (both[one] == both[other]).all():
        return f"{one} and {other} need the same {quantity.what} ({measured}): {last}."
    if less.all():
        return f"{one} needs less {quantity.what} than {other} at all numbers measured ({measured}): {last}."
    if not less.any():
        return f"{one} never needs less {quantity.what} than {other} ({measured}): {last}."
    first = next((count for count in both.index if less.loc[count:].all()), None)
    if first is None:
        return (
            f"{one} needs less {quantity.what} than {other} at some numbers ({measured}), but not at the last: {last}."
        )
    return f"From {_tenants(first)} on, {one} needs less {quantity.what} than {other}: {last}."


def _tenants(count: int) -> str:
    return "1 tenant" if count == 1 else f"{count} tenants"
