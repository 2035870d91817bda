"""What ``benchmarks/gpu.sh`` brought back, as tables to keep: a folder for each sweep and a page over them.

    python benchmarks/gpu_results.py OUT results/h200

Takes every ``OUT/*.tar.gz`` and ``OUT/log.txt``; what an earlier run left in the folder stays on the page. Each sweep
gets its tables as CSV, its ``sweep.yaml`` and ``plan.json``; the page ``README.md`` says on which card, with which
versions, and how far each peak of memory was from the one that its plan expected. Rows that did not end well are in it
with their reason.
"""

from __future__ import annotations

import argparse
import io
import re
import sys
import tarfile
from pathlib import Path

import pandas as pd

#: What the page shows of a row, and its unit there: name, column, divisor, decimals.
NUMBERS = (
    ("tokens/s", "train_tokens_per_s", 1, 0),
    ("step, ms", "train_step_s_median", 1e-3, 0),
    ("MFU", "mfu", 1, 3),
    ("weights, GB", "weights_bytes", 1e9, 2),
    ("activations, GB", "activations_bytes", 1e9, 2),
    ("estimated peak, GB", "estimated_bytes", 1e9, 2),
    ("allocated peak, GB", "peak_train_bytes", 1e9, 2),
    ("allocated/estimated", "peak_to_estimate", 1, 3),
    ("energy, J", "energy_j", 1, 0),
    ("decode, ms a token", "decode_s_per_token_p50", 1e-3, 1),
    ("duration, s", "duration_s", 1, 0),
)
VERSIONS = ("torch", "transformers", "peft", "trl", "bitsandbytes")


def unpack(archive: Path, out: Path) -> Path | None:
    """Write what is worth keeping of a sweep's archive below ``out``; None if the archive holds no table of trials."""
    with tarfile.open(archive) as packed:
        files = {member.name: member for member in packed.getmembers() if member.isfile()}
        if not any(name.endswith("/tables/trials.csv") for name in files):
            return None
        folder = out / next(iter(files)).split("/")[0]
        folder.mkdir(parents=True, exist_ok=True)
        for name, member in files.items():
            path = Path(name)
            of_sweep = len(path.parts) == 2 and path.name in ("sweep.yaml", "plan.json")
            content = packed.extractfile(member)
            if content is not None and (of_sweep or (path.parent.name == "tables" and path.suffix == ".csv")):
                (folder / path.name).write_bytes(content.read())
    return folder


def read_trials(folder: Path) -> pd.DataFrame:
    """The trials of a sweep, with the share of the expected peak that the measured one was."""
    trials = pd.read_csv(folder / "trials.csv")
    return trials.assign(peak_to_estimate=trials.peak_train_bytes / trials.estimated_bytes)


def table(rows: pd.DataFrame) -> str:
    """The rows as a Markdown table; a number that a row lacks is a dash."""
    head = ("model", "method", "batch × length", "status", *(name for name, *_ in NUMBERS), "reason")
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for row in rows.to_dict("records"):
        numbers = [
            "–" if pd.isna(value := row.get(column)) else f"{value / unit:,.{digits}f}"
            for _, column, unit, digits in NUMBERS
        ]
        reason = "" if pd.isna(row["reason"]) else str(row["reason"]).splitlines()[0].replace("|", "/")
        size = f"{row['batch_size']:.0f} × {row['max_length']:.0f}"
        lines.append("| " + " | ".join([row["model"], row["method"], size, row["status"], *numbers, reason]) + " |")
    return "\n".join(lines)


def page(sweeps: dict[str, pd.DataFrame], log: str) -> str:
    """The page over all sweeps."""
    every = pd.concat(sweeps.values())

    def told(column: str) -> str:
        return ", ".join(sorted(map(str, every[column].dropna().unique()))) or "not recorded"

    driver = re.search(r"Driver Version: ([\d.]+)", log)
    out = io.StringIO()
    out.write("# On one large GPU\n\n")
    out.write("Made by `benchmarks/gpu.sh` and `benchmarks/gpu_results.py`, see `docs/gpu.md`; not edited by hand.\n\n")
    out.write(f"- Card: {told('accelerator')}; driver {driver[1] if driver else 'not recorded'}.\n")
    out.write("- Versions: " + ", ".join(f"{name} {told(name + '_version')}" for name in VERSIONS) + ".\n")
    out.write(f"- Begun: {told('started_at')}.\n")
    measured = every.peak_to_estimate.dropna()
    if len(measured):
        out.write(
            f"- Allocated peak of training over the plan's estimate, {len(measured)} rows: "
            f"{measured.min():.3f} to {measured.max():.3f}, in the median {measured.median():.3f}.\n"
        )
    out.write("\nModels have random weights, so scores mean nothing. A row is one trial of one seed.\n")
    for name, rows in sweeps.items():
        out.write(f"\n## {name}\n\n{table(rows)}\n")
    if results := re.findall(r"^.*\b(?:passed|failed)\b.* in [\d.]+s.*$", log, re.MULTILINE):
        out.write("\n## Tests\n\n" + "\n".join(f"`{line.strip('= ')}`" for line in results) + "\n")
    return out.getvalue()


def main() -> None:
    """Read OUT, write the folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="the folder that gpu.sh wrote to")
    parser.add_argument("out", type=Path, help="the folder for the tables")
    args = parser.parse_args()
    folders = [folder for path in sorted(args.source.glob("*.tar.gz")) if (folder := unpack(path, args.out))]
    if not folders:
        sys.exit(f"{args.source}: no archive with a table of trials; gpu.sh writes them")
    kept = [path.parent for path in sorted(args.out.glob("*/trials.csv"))]
    sweeps = {folder.name: rows for folder in kept if len(rows := read_trials(folder))}
    if not sweeps:
        sys.exit(f"{args.source}: no trial has ended")
    log = args.source / "log.txt"
    text = page(sweeps, log.read_text(encoding="utf-8", errors="replace") if log.exists() else "")
    (args.out / "README.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
