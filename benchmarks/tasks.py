"""The tasks of the package as a table: split sizes, licence, and what a model gets that reads nothing.

    python benchmarks/tasks.py --out docs/tasks.md

Sizes are counted by opening the data. A task whose data is not on this machine and comes from no package stands there
without them.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from harness.errors import InputError
from harness.sources.fetch import HubSource, LocalSource
from harness.tasks import data
from harness.tasks.evaluate import majority_score
from harness.tasks.probes import SUITES
from harness.tasks.spec import TaskSpec, load_spec, names

HEAD = """\
# Tasks

Made by `python benchmarks/tasks.py --out docs/tasks.md`; do not edit by hand.

A number of inputs stands for a split; a plain one is drawn, one in italics is the official split. *Reads nothing* is
the primary metric of a model that gives one answer to everything, the best one, or picks a choice at random. Tasks of
the hub and those below `TUNEBENCH_DATA` have no sizes here where their data was not on the machine that made this page.

| task | what | kind | train | validation | test | primary metric | reads nothing | source | licence of the data |
|---|---|---|---|---|---|---|---|---|---|
"""


PROBES = """\

## Probes

`probes: [retention]` in a sweep asks every model more than its own task, before and after training:
{asked}. The numbers of examples and
tokens belong to the suite and not to the budget. The base is asked once, and its answers are cached.

The column `forgetting` is the loss on `{text}` after training minus that before, in nats per token: above 0,
the model forgot. The table `scores` has every number under the splits `retention` (after), `retention_before` and
`retention_change`; there, an accuracy below 0 is what was forgotten. `forgetting` is null on encoders,
encoder-decoders, reward models and random weights, and where the trial's own task has the data of `{text}`;
the row's `note` says why.
"""


def probes() -> str:
    """The section about the suite of retention."""
    suite = SUITES["retention"]
    several = ", ".join(f"`{name}`" for name in suite.choices)
    asked = f"{suite.examples} texts of `{suite.text}` and {suite.examples} questions each of {several}"
    return PROBES.format(asked=asked, text=suite.text)


def source(spec: TaskSpec) -> str:
    """Where the data comes from, in a few words."""
    match spec.source:
        case HubSource(hub=name):
            return f"hub `{name}`"
        case LocalSource(local=name):
            return f"`$TUNEBENCH_DATA/{name}`"
        case other:
            return f"package `{getattr(other, 'package', '')}`"


def row(name: str) -> str:
    """One line of the table."""
    spec = load_spec(name)
    sizes, nothing = ["", "", ""], ""
    try:
        task = data.load(name)
    except InputError as error:
        print(f"{name}: {error}", file=sys.stderr)
    else:
        splits = (spec.splits.train, spec.splits.validation, spec.splits.test)
        counts = (len(task.train), len(task.validation), len(task.test))
        sizes = [
            f"*{count:,}*" if isinstance(split, str) else f"{count:,}"
            for split, count in zip(splits, counts, strict=True)
        ]
        trivial = majority_score(task)
        nothing = "" if trivial is None else f"{trivial:.3f}"
    kind = spec.kind.replace("_", " ")
    licence = spec.license.data if spec.license else ""
    cells = [f"`{name}`", spec.description, kind, *sizes, f"`{spec.primary_metric}`", nothing, source(spec), licence]
    return f"| {' | '.join(cells)} |\n"


def main() -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    options.out.write_text(HEAD + "".join(map(row, names())) + probes(), encoding="utf-8")


if __name__ == "__main__":
    main()
