"""Fill the cache before a sweep runs."""

from __future__ import annotations

import typer

from harness.cli.app import SetOption, SweepArgument
from harness.cli.output import say


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command()(fetch)


def fetch(sweep: SweepArgument, set_: SetOption = None) -> None:
    """Download the models and data of a sweep into the cache, for machines without a network.

    What is in the cache already is checked by its hashes, and a damaged file is downloaded anew.
    """
    from harness.models.checkpoint import checkpoint_dir
    from harness.models.spec import load_spec as load_model
    from harness.sources import fetch as fetching
    from harness.sweeps import axes, expand
    from harness.sweeps import spec as sweeps
    from harness.tasks.metrics import METRICS
    from harness.tasks.probes import SUITES
    from harness.tasks.spec import load_spec as load_task

    wanted = sweeps.load(sweep, set_ or ())
    suites = {name for row in expand.plan(wanted).rows for name in row.trial.budget.probes}
    matrix = axes.load(wanted)
    for model in (load_model(entry.spec.address) for entry in matrix.models):
        say(f"{model.name}: {'random weights' if model.is_random else checkpoint_dir(model, verify=True)}")
    asked = (task for suite in sorted(suites) for task in SUITES[suite].tasks)
    for task in map(load_task, dict.fromkeys((*(entry.spec.address for entry in matrix.tasks), *asked))):
        say(f"{task.name}: {fetching.resolve(task.source, verify=True)}")
        for metric in (METRICS[name] for name in task.metrics):
            if metric.source is not None:
                say(f"{metric.name}: {fetching.resolve(metric.source, verify=True)}")
