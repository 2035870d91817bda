"""Show what a sweep would run."""

from __future__ import annotations

import typer

from harness.cli.app import ForceOption, JsonOption, MemoryOption, OnlyOption, SetOption, SweepArgument, parse_only
from harness.cli.output import print_json, print_table


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command()(plan)


def plan(
    sweep: SweepArgument,
    set_: SetOption = None,
    only: OnlyOption = None,
    memory: MemoryOption = None,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Show what would run with its estimated memory, and what is skipped and why."""
    from dataclasses import replace

    from harness.estimate import planned
    from harness.sweeps import expand as matrix
    from harness.sweeps import spec as sweeps

    limit = planned.limits(memory, force=force)
    made = matrix.plan(sweeps.load(sweep, set_ or ()))
    if wanted := parse_only(only):
        ids = made.matching(wanted)
        made = replace(made, rows=tuple(row for row in made.rows if row.trial_id in ids))
    made = planned.judge(made, limit)
    if as_json:
        print_json(made.document())
    else:
        from harness.cli import shown

        lines = shown.plan(made)
        print_table(lines.header, lines.rows)
        out = sum(count for _, count in made.excluded)
        print(
            f"{len(made.runnable)} to run, {len(made.skipped)} skipped, {out} excluded, "
            f"{made.duplicates} duplicates merged"
        )
