"""The tasks of the package as a table: split sizes, licence, and what a model gets that reads nothing or is untrained.

    python benchmarks/tasks.py --zero-shot
    python benchmarks/tasks.py --out docs/tasks.md

Sizes are counted by opening the data. A task whose data is not on this machine and comes from no package stands there
without them. The untrained models' scores come from ``zero_shot.csv``, to which ``--zero-shot`` adds what it lacks.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

import zero_shot

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

A column with the name of a model holds its primary metric before any training, ± its standard error, on {examples} test
examples (all of them where a split has fewer) with texts of at most {length} tokens. `python benchmarks/tasks.py
--zero-shot` measures what `benchmarks/zero_shot.csv` lacks, where the data is on the machine; {measured} tasks have
scores. The encoder gives a text the label whose words are most like it, and has no answer to other kinds of tasks.

| task | what | kind | train | validation | test | primary metric | reads nothing | {models} | source | data licence |
|---|---|---|---|---|---|---|---|{lines}|---|---|
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


def head(measured: int) -> str:
    """What stands above the table, and its first two lines; ``measured`` tasks have a zero-shot score."""
    budget = zero_shot.BUDGET
    numbers = {"examples": budget.eval_examples, "length": budget.max_length, "measured": measured}
    columns, lines = " | ".join(f"`{name}`" for name in zero_shot.MODELS), "|".join("---" for _ in zero_shot.MODELS)
    return HEAD.format(models=columns, lines=lines, **numbers)


def page() -> str:
    """The whole page."""
    untrained = zero_shot.read()
    return head(len({task for task, _ in untrained})) + "".join(row(name, untrained) for name in names()) + probes()


def row(name: str, untrained: Mapping[zero_shot.Key, zero_shot.ZeroShot]) -> str:
    """One line of the table; ``untrained`` are the rows of the table of zero-shot scores."""
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
    scores = [str(untrained.get((name, model), "")) for model in zero_shot.MODELS]
    metric = f"`{spec.primary_metric}`"
    cells = [f"`{name}`", spec.description, kind, *sizes, metric, nothing, *scores, source(spec), licence]
    return f"| {' | '.join(cells)} |\n"


def main() -> None:
    """Write the page, or measure what the table of zero-shot scores lacks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="write the page there")
    parser.add_argument("--zero-shot", action="store_true", help="measure what zero_shot.csv lacks")
    options = parser.parse_args()
    if not (options.out or options.zero_shot):
        parser.error("one of --out and --zero-shot is needed")
    if options.zero_shot:
        zero_shot.measure()
    if options.out:
        options.out.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
