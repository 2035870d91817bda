"""A sweep that searches, run from its first setting to the last seed: what ran, what is stored, what the rows say."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from helpers import tiny_models as tiny
from helpers.command_line import run as command

from harness.errors import InputError
from harness.ledger.ledger import Ledger
from harness.results import tables
from harness.results.record import Outcome, Record
from harness.runner import driver, executors
from harness.runner import run as runs
from harness.runner.endings import OK, Ending
from harness.runner.run import Finished
from harness.sweeps import expand, spec
from harness.sweeps.plan import Plan
from harness.trial import Trial

RATES = [1e-3, 2e-3, 4e-3]
FULL: dict[str, Any] = {"full": {"learning_rate": RATES}}
CHAIN: dict[str, Any] = {**FULL, "bitdelta": {"learning_rate": [1e-2, 3e-2]}}
Score = Callable[[Trial], float | None]


class Job:
    def waits(self) -> bool:
        return False

    def ended(self) -> Ending:
        return OK


class Instant:
    """An executor whose trials have ended when they are submitted, with the validation score that ``score`` gives."""

    def __init__(self, score: Score) -> None:
        self.score = score
        self.ran: list[Trial] = []
        self.seen: list[str] = []

    def __call__(self, resources: object, jobs: int, cold: bool) -> Instant:
        self.seen.append("made")
        return self

    def check(self, resources: object) -> None:
        return

    def room(self) -> int:
        return 1

    def submit(self, trial_dirs: Sequence[Path]) -> list[Job]:
        for trial_dir in trial_dirs:
            ledger, is_parent = Ledger.of_trial(trial_dir)
            row = ledger.row(trial_dir.name)
            if (claim := ledger.claim(row.trial_id)) is None:
                continue
            self.ran.append(row.trial)
            if is_parent:
                ledger.artifact_dir(row.trial_id).mkdir(parents=True, exist_ok=True)
            score = self.score(row.trial)
            columns = {
                "valid_score": score,
                "test_score": score,
                "primary_metric": "accuracy",
                "higher_is_better": True,
            }
            ledger.finish(
                Record(
                    trial_id=row.trial_id,
                    sweep=ledger.plan.sweep,
                    trial=row.trial,
                    status="ok" if score is not None else "diverged",
                    reason=None if score is not None else "the loss is not finite",
                    started_at=datetime.now(UTC),
                    outcome=Outcome(columns=columns) if score is not None else None,
                )
            )
            claim.release()
        return [Job() for _ in trial_dirs]

    def close(self) -> None:
        self.seen.append("closed")


def middle(trial: Trial) -> float:
    return 0.9 - abs((trial.learning_rate or 0) - 2e-3)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Finished]:
    """Run the sweep in ``tmp_path/out``; keywords are keys of its file, or ``score`` and the options of a run."""
    monkeypatch.setenv("TUNEBENCH_NOTEBOOKS", str(tmp_path / "notebooks"))
    monkeypatch.setattr(driver, "_POLL_S", 0.0)

    def ran(score: Score = middle, only: Any = None, retry: bool = False, **changes: Any) -> Finished:
        usual = {"seeds": [0, 1, 2], "search": {"seeds": 1}, "methods": FULL}
        sweep = spec.load(tiny.bench(tmp_path, **{**usual, **changes}))
        monkeypatch.setattr(executors, "factory", lambda _: Instant(score))
        return runs.run(sweep, tmp_path / "out", only=only, retry=retry)

    return ran


def rows(folder: Path, *names: str) -> list[tuple[Any, ...]]:
    frame = tables.read(folder)["trials"]
    return [tuple(None if pd.isna(v) else v for v in row) for row in frame[list(names)].itertuples(index=False)]


def test_the_rows_say_what_was_chosen_and_among_how_many(tmp_path: Path, run: Callable[..., Finished]) -> None:
    finished = run()
    assert (finished.ran, len(finished.records), finished.all_well) == (5, 5, True)
    assert rows(tmp_path / "out", "seed", "learning_rate", "selected", "settings_tried") == [
        *((0, rate, rate == 2e-3, 3) for rate in RATES),
        *((seed, 2e-3, True, 3) for seed in (1, 2)),
    ]
    assert run().ran == 0, "everything is done"


def interrupted(_trial: Trial) -> float:
    raise KeyboardInterrupt


def no_plan(_plan: Plan) -> Plan:
    raise InputError("no room for these")


@pytest.mark.usefixtures("run")
def test_all_stages_share_an_executor_which_is_closed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep = spec.load(tiny.bench(tmp_path, seeds=[0, 1], search={"seeds": 1}, methods=CHAIN))
    executor, stopped = Instant(middle), Instant(interrupted)
    stages: list[int] = []

    def judged(plan: Plan) -> Plan:
        stages.append(len(plan.rows))
        return plan if len(stages) < 3 else no_plan(plan)

    monkeypatch.setattr(executors, "factory", lambda _: executor)
    with pytest.raises(InputError, match="no room"):
        runs.run(sweep, tmp_path / "out", judge=judged)
    assert len(stages) == 3 and executor.seen == ["made", "closed"], "also where a later stage is refused"
    assert runs.run(sweep, tmp_path / "out").all_well and executor.seen == ["made", "closed"] * 2
    assert runs.run(sweep, tmp_path / "out").ran == 0 and executor.seen == ["made", "closed"] * 2, "nothing to run"
    monkeypatch.setattr(executors, "factory", lambda _: stopped)
    with pytest.raises(KeyboardInterrupt):
        runs.run(sweep, tmp_path / "other")
    assert stopped.seen == ["made", "closed"]


def test_a_chain_starts_from_the_chosen_setting_and_losers_keep_no_checkpoint(
    tmp_path: Path, run: Callable[..., Finished], monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[int] = []
    original = expand.plan

    def plan(*given: Any) -> Any:
        kept.append(len(list((tmp_path / "out" / "artifacts").glob("*"))))
        return original(*given)

    monkeypatch.setattr(expand, "plan", plan)
    finished = run(methods=CHAIN)
    assert finished.ran == len(finished.records) == 3 + 2 + 2 + 2, "no trial runs twice"
    assert kept == [0, 3, 1 + 2 - 1, 0], (
        "before each plan: nothing, all settings, the best on the seeds that wait, nothing"
    )
    assert finished.ledger.plan.later == ()


def test_all_failed_is_said_on_every_seed_and_retry_starts_over(tmp_path: Path, run: Callable[..., Finished]) -> None:
    assert not run(lambda _: None).all_well
    facts = ("seed", "status", "reason", "selected", "settings_tried")
    lost = "none of the 3 settings that were tried on seed 0 ended well"
    assert rows(tmp_path / "out", *facts) == [
        *[(0, "diverged", "the loss is not finite", False, 3)] * 3,
        *[(seed, "skipped", lost, False, 3) for seed in (1, 2)],
    ]
    finished = run(retry=True)
    assert (finished.ran, finished.all_well) == (5, True)
    assert rows(tmp_path / "out", "seed", "learning_rate", "status") == [
        *((0, rate, "ok") for rate in RATES),
        *((seed, 2e-3, "ok") for seed in (1, 2)),
    ], "the rows that said so are gone"


def test_a_setting_that_fails_does_not_stop_the_search(tmp_path: Path, run: Callable[..., Finished]) -> None:
    run(lambda trial: None if trial.learning_rate == 2e-3 else trial.learning_rate)
    assert rows(tmp_path / "out", "seed", "learning_rate", "selected")[3:] == [(1, 4e-3, True), (2, 4e-3, True)]


def test_only_a_seed_runs_the_settings_first(tmp_path: Path, run: Callable[..., Finished]) -> None:
    methods = {**FULL, "lora": {"learning_rate": RATES}}
    finished = run(methods=methods, only={"method": ["lora"], "seed": [2]})
    assert finished.ran == 3 + 1
    assert Counter(rows(tmp_path / "out", "method", "seed")) == {("lora", 0): 3, ("lora", 2): 1}
    some = run(methods=methods, only={"method": ["full"], "learning_rate": [1e-3]})
    assert (some.ran, sum(one.trials for one in some.ledger.plan.later)) == (1, 2), "nothing is chosen"


@pytest.mark.slow
@pytest.mark.long
def test_a_killed_search_goes_on_where_it_was_with_two_drivers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    act = "write_outcome(trial_dir, {'valid_score': learning_rate, 'primary_metric': 'accuracy'}, {})"
    tiny.bench(tmp_path, methods=FULL, seeds=[0, 1], search={"seeds": 1})
    tiny.notebook(tmp_path / "notebooks" / "methods" / "full.ipynb", cells=(_WRITE + act,))
    out = tmp_path / "results" / "tiny"
    killed = tiny.tunebench(tmp_path, "run", "tiny.yaml", "--force")
    while not list(out.glob("trials/*/record.json")):
        assert killed.poll() is None, killed.communicate()
        time.sleep(0.02)
    os.kill(killed.pid, signal.SIGKILL)
    killed.communicate()
    before = {path: path.read_bytes() for path in out.glob("trials/*/record.json")}
    assert 1 <= len(before) < 4
    assert "planned later  1" in command(monkeypatch, capsys, "status", str(out))[1].replace("       ", "  ")
    for code, _, err in map(tiny.done, [tiny.tunebench(tmp_path, "run", "tiny.yaml", "--force") for _ in range(2)]):
        assert code == 0, err
    assert all(path.read_bytes() == content for path, content in before.items()), "what was done is not run again"
    assert [row[1:] for row in sorted(rows(out, "seed", "learning_rate", "selected"))] == [
        (1e-3, False), (2e-3, False), (4e-3, True), (4e-3, True)
    ]  # fmt: skip
    assert "planned later" not in command(monkeypatch, capsys, "status", str(out))[1]


_WRITE = "from harness.results.record import write_outcome\n"
