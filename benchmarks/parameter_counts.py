"""Count again every row of ``results/reference/hu2021_lora_counts.csv`` and write what was counted.

The settings and notes of the table are written by hand; ``counted`` and ``agrees`` come from here.

    python benchmarks/parameter_counts.py
"""

from __future__ import annotations

import csv
from pathlib import Path

from harness.estimate.counts import agree, read

TABLE = Path(__file__).parents[1] / "results" / "reference" / "hu2021_lora_counts.csv"


def main() -> None:
    """Rewrite the table in place."""
    with TABLE.open(newline="", encoding="utf-8") as file:
        written = list(csv.DictReader(file))
    for line, row in zip(written, read(TABLE), strict=True):
        counted = row.recount()
        line |= {"counted": str(counted), "agrees": str(agree(counted, row.published))}
        print(f"{row.model:20}{row.published_method:18}{row.published:>15,}{counted:>16,}  {line['agrees']}")
    with TABLE.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(written[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(written)


if __name__ == "__main__":
    main()
