"""What merging changed, in words that follow from the rows of the table ``merge_fidelity``."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

#: Methods that differ in the format of the base under them: the first one's base is whole, the second one's is not.
PAIR = ("lora", "qlora")


def sentences(rows: pd.DataFrame) -> Iterator[str]:
    """One sentence for each method, and one for each format in which both methods of :data:`PAIR` were merged.

    Several trials give their median. Nothing for a table without rows.
    """
    for (model, method), own in rows.groupby(["model", "method"], sort=False):
        each = own.groupby("format", sort=False)[["kl", "changed_tokens", "changed_answers"]].median()
        parts = [
            f"{name} changes {row.changed_tokens:.1%} of the next tokens and {row.changed_answers:.0%} of the answers "
            f"(KL {row.kl:.2g} nats)"
            for name, row in each.iterrows()
        ]
        yield f"{method} on {model}, merged: {'; '.join(parts)}."
    for model, own in rows.groupby("model", sort=False):
        wide = own.pivot_table(index="format", columns="method", values="kl", aggfunc="median", sort=False)
        if set(PAIR) <= set(wide):
            yield from (
                _compared(str(model), str(name), row) for name, row in wide.dropna(subset=list(PAIR)).iterrows()
            )


def _compared(model: str, name: str, kl: pd.Series) -> str:
    plain, four_bits = PAIR
    if kl[plain] == kl[four_bits]:
        return f"On {model} in {name}, {plain} and {four_bits} lose the same by a merge: {kl[plain]:.2g} nats."
    less, more = sorted(PAIR, key=lambda method: kl[method])
    return (
        f"On {model} in {name}, {less} loses less than {more} by a merge: {kl[less]:.2g} against {kl[more]:.2g} nats."
    )
