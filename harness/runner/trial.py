"""Running one trial here: claim it, execute its notebook, write its record. What every executor calls."""

from __future__ import annotations

import json
import os
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from pydantic import ValidationError

from harness import notebooks
from harness.errors import InputError
from harness.files import LOG_FILE, OUTCOME_FILE, PROGRESS_FILE, SWEEP_FILE, open_log, version_of
from harness.ledger import parents
from harness.ledger.claims import LEASE_S, Claim
from harness.ledger.ledger import Ledger
from harness.processes import together
from harness.processes.lifetime import DRIVER_VARIABLE, die_with, interruptible
from harness.results import tables
from harness.results.execution_columns import not_active
from harness.results.record import Outcome, Record
from harness.runner.endings import Ending, record_of
from harness.runner.notebook import Run
from harness.sweeps import spec as sweep
from harness.sweeps.plan import Planned
from harness.sweeps.spec import Sweep
from harness.trial import Trial


def run_trial(trial_dir: Path) -> Record | None:
    """Run the trial in ``trial_dir`` (``results/<sweep>/trials/<trial_id>``) and return its record.

    None when there is nothing to do: the trial is done, or somebody else works on it. Whatever the notebook does ends
    in a record; only an interrupt (SIGINT, SIGTERM, SIGUSR2) and the removal of the folder leave none, so that the
    trial runs again. Raises :class:`InputError` when the folder is not that of a planned trial, and when a parent has
    to run first.
    """
    tied = _tie_to_driver()
    trial_dir = trial_dir.resolve()
    ledger, is_parent = Ledger.of_trial(trial_dir)
    row = ledger.row(trial_dir.name)
    notebooks.check_name(row.trial.notebook)
    settings = sweep.load(ledger.folder / SWEEP_FILE)
    parents.require(ledger, row.trial)
    claim = ledger.claim(row.trial_id)
    if claim is None:
        return None
    clock = time.monotonic()
    os.environ[together.VARIABLE] = str(settings.resources.together)
    try:
        with os.fdopen(open_log(trial_dir / LOG_FILE), "a", encoding="utf-8") as log:
            print(
                f"[tunebench] attempt {claim.attempt}, {claim.started_at:%Y-%m-%d %H:%M:%S} UTC", file=log, flush=True
            )
            outcome, ending = _execute(ledger, row, is_parent, claim, settings, log, tied)
    except KeyboardInterrupt:
        claim.release()
        raise
    if ending.status != "ok" and not claim.path.exists():  # the folder was taken away under the notebook
        return None
    clocked = time.monotonic() - clock
    record = record_of(ledger, row, ending, claim.attempt, claim.started_at, clocked, outcome)
    try:
        tables.check(record)
    except InputError as error:  # one such record would keep the whole sweep from its tables
        ending = Ending("failed", f"{OUTCOME_FILE} does not fit into the tables: {error}")
        record = record_of(ledger, row, ending, claim.attempt, claim.started_at, clocked)
    ledger.finish(record)
    return record


def _execute(
    ledger: Ledger, row: Planned, is_parent: bool, claim: Claim, settings: Sweep, log: IO[str], tied: bool
) -> tuple[Outcome | None, Ending]:
    """Run the notebook; what goes wrong around it is a failure of the trial like one inside it."""
    trial_dir = ledger.trial_dir(row.trial_id)
    try:
        parameters = _parameters(ledger, row, is_parent or settings.keep_artifacts)
        run = Run(notebooks.path(row.trial.notebook), trial_dir, log)
        with _heartbeat(claim, run, tied), interruptible():
            _clear(trial_dir)
            return _outcome(row.trial, trial_dir, run.execute(parameters, settings.limits))
    except Exception as error:
        traceback.print_exc(file=log)
        first_line = (str(error).splitlines() or [""])[0]
        return None, Ending("failed", f"{type(error).__name__}: {first_line}")


def _tie_to_driver() -> bool:
    """End with the driver that started this process, if one did: nobody would take the result."""
    # Taken out of the environment, because it is not meant for what the notebook may start.
    driver = os.environ.pop(DRIVER_VARIABLE, None)
    if driver is not None:
        die_with(int(driver))
    return driver is not None


def _parameters(ledger: Ledger, row: Planned, keep: bool) -> dict[str, Any]:
    """What papermill gets: only what the notebook declares. Raises :class:`InputError` for anything that it lacks."""
    trial = row.trial
    _check_method(trial)
    declared = notebooks.parameters(trial.notebook)
    given = trial.parameters()
    if "method_args" in declared:
        given = {name: value for name, value in given.items() if name not in trial.method_args}
        given |= {"method": trial.address("method"), "method_args": trial.method_args}
    if given["learning_rate"] is None and "learning_rate" not in declared:
        del given["learning_rate"]
    if stray := sorted(given.keys() - declared.keys()):
        raise InputError(f"{notebooks.path(trial.notebook)}: the cell tagged 'parameters' lacks '{stray[0]}'")
    chosen = ledger.chosen_parents(trial)
    if lost := sorted(trial.parents.keys() - chosen.keys()):
        raise InputError(f"trial {row.trial_id}: no trial that could be its parent ({lost[0]}) has ended well")
    places = {
        "trial_dir": str(ledger.trial_dir(row.trial_id)),
        "artifact_dir": str(ledger.artifact_dir(row.trial_id)) if keep else None,
        "parent_dirs": {role: str(ledger.artifact_dir(parent)) for role, parent in chosen.items()},
    }
    return given | {name: place for name, place in places.items() if name in declared}


def _check_method(trial: Trial) -> None:
    """Raise :class:`InputError` if an own method's file is not the one that was planned: the row would be another's."""
    if trial.method_version is None:
        return
    file = Path(trial.address("method"))
    if not file.is_file():
        raise InputError(f"method: there is no file {file} any more; run the sweep again from where it is now")
    if version_of(file) != trial.method_version:
        raise InputError(f"method: {file} has changed since this trial was planned; run the sweep again")


def _clear(trial_dir: Path) -> None:
    """Take away what an earlier attempt left, so that nothing of it can be taken for this one's."""
    for name in (OUTCOME_FILE, PROGRESS_FILE, "notebook.ipynb", "notebook.part.ipynb"):
        (trial_dir / name).unlink(missing_ok=True)


def _outcome(trial: Trial, trial_dir: Path, ending: Ending) -> tuple[Outcome | None, Ending]:
    """What the notebook measured, and the ending once that is known: without an outcome nothing is ok."""
    if ending.status != "ok":
        return None, ending
    try:
        outcome = Outcome.model_validate(json.loads((trial_dir / OUTCOME_FILE).read_bytes()))
    except FileNotFoundError:
        return None, Ending("failed", f"the notebook ended without writing {OUTCOME_FILE} (write_outcome)")
    except (ValidationError, ValueError) as error:
        return None, Ending("failed", f"{OUTCOME_FILE} is not valid: {str(error).splitlines()[0]}")
    if (reason := not_active(trial.execution, outcome.columns)) is not None:  # a notebook of one's own may not ask
        return None, Ending("skipped", reason)
    return outcome, ending


@contextmanager
def _heartbeat(claim: Claim, run: Run, tied: bool) -> Iterator[None]:
    """Touch the claim while the trial runs; watch the driver too, for systems that cannot tie processes."""
    over = threading.Event()
    parent = os.getppid()

    def beat() -> None:
        ticks = 0
        while not over.wait(1.0):
            ticks += 1
            if tied and os.getppid() != parent:
                run.kill()
                os._exit(1)
            if ticks % max(1, int(LEASE_S / 6)) == 0:
                claim.beat()
                if claim.is_superseded():  # this host was out of sight for too long: the trial is another's now
                    run.kill()
                    os._exit(0)

    thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
