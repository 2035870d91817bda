"""Rows of the execution study, ready for a figure: those of one model and method at a time."""

from __future__ import annotations

import pandas as pd

from harness.figures.panels import Tables

NO_STUDY = "no execution study is among these tables"


def of_study(tables: Tables) -> list[pd.DataFrame]:
    """The rows of the table ``ways`` by model and method. Empty without a study."""
    table = tables.get("ways")
    if table is None or table.empty:
        return []
    return [rows for _, rows in table.groupby(["model", "method"], sort=False)]


def place(rows: pd.DataFrame) -> str:
    """Where a panel's rows are from, and whether others used the machine: all ways ran in turn, so the rows stay."""
    busy = int(rows.disturbed.astype("boolean").fillna(False).sum())
    note = f"others used the machine in {busy} of {len(rows)} runs, in turn" if busy else ""
    return " · ".join(filter(None, (rows.model.iloc[0], rows.method.iloc[0], note)))
