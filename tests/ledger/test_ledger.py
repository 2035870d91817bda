"""The ledger: one winner for every claim and every record, whatever dies in between."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from multiprocessing import get_context
from pathlib import Path

import pytest

from harness.errors import InputError
from harness.ledger import claims
from harness.ledger.claims import Claim
from harness.ledger.ledger import Ledger
from harness.results.record import Record
from harness.sweeps.plan import Plan, Planned
from harness.trial import Trial


def trial(seed: int) -> Trial:
    return Trial(notebook="methods/full", method="full", objective="sft", model="m", task="t", seed=seed)


def a_plan(*seeds: int, impossible: Sequence[int] = ()) -> Plan:
    return Plan("s", tuple(Planned(trial(n), "cannot" if n in impossible else None) for n in seeds))


def create(folder: Path, plan: Plan) -> Ledger:
    return Ledger.create(folder, plan, "name: s\n", {"hostname": "here"})


def record(of: Trial, status: str = "ok", reason: str | None = None) -> Record:
    return Record.model_validate(
        {
            "trial_id": of.trial_id,
            "sweep": "s",
            "trial": of,
            "status": status,
            "reason": reason,
            "started_at": datetime.now(UTC),
        }
    )


def ids(rows: Sequence[Planned]) -> list[int]:
    return [row.trial.seed for row in rows]


def test_what_cannot_run_has_its_record_at_once(tmp_path: Path) -> None:
    ledger = create(tmp_path, a_plan(0, 1, impossible=[1]))
    assert ids(ledger.pending()) == [0]
    (skipped,) = ledger.records()
    assert (skipped.status, skipped.reason, skipped.attempt) == ("skipped", "cannot", 0)
    assert skipped.environment == {"hostname": "here"}
    assert ledger.status() == {"skipped": 1, "pending": 1}


def test_a_changed_sweep_adds_and_takes_nothing_away(tmp_path: Path) -> None:
    first = create(tmp_path, a_plan(0, 1))
    first.finish(record(trial(0)))
    first.finish(record(trial(1), "failed"))
    second = create(tmp_path, a_plan(1, 2))
    assert ids(second.pending()) == [2]
    assert [(r.trial.seed, r.status) for r in second.records()] == [(1, "failed"), (0, "ok")]
    assert Ledger.open(tmp_path).plan.rows == second.plan.rows


def test_what_was_impossible_runs_once_it_is_possible(tmp_path: Path) -> None:
    create(tmp_path, a_plan(0, impossible=[0]))
    assert ids(create(tmp_path, a_plan(0)).pending()) == [0]


def test_another_sweep_is_refused(tmp_path: Path) -> None:
    create(tmp_path, a_plan(0))
    with pytest.raises(InputError, match="holds the sweep 's', not 'other'"):
        create(tmp_path, Plan("other", ()))


def test_a_folder_without_a_plan_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no plan\.json here"):
        Ledger.open(tmp_path)


def test_the_first_record_stays(tmp_path: Path) -> None:
    ledger = create(tmp_path, a_plan(0))
    assert ledger.finish(record(trial(0), "ok"))
    assert not ledger.finish(record(trial(0), "failed"))
    assert [r.status for r in ledger.records()] == ["ok"]
    assert not list(tmp_path.rglob("*.part"))


def test_a_claim_is_exclusive_while_its_owner_lives(tmp_path: Path) -> None:
    ledger, other = create(tmp_path, a_plan(0)), Ledger.open(tmp_path)
    trial_id = trial(0).trial_id
    claim = ledger.claim(trial_id)
    assert claim is not None
    assert claim.attempt == 1
    assert other.claim(trial_id) is None
    assert ledger.status() == {"running": 1}
    claim.release()
    assert not claim.is_superseded()
    again = other.claim(trial_id)
    assert again is not None
    assert again.attempt == 2
    assert claim.is_superseded() and not again.is_superseded()


def test_a_done_trial_cannot_be_claimed(tmp_path: Path) -> None:
    ledger = create(tmp_path, a_plan(0))
    ledger.finish(record(trial(0)))
    assert ledger.claim(trial(0).trial_id) is None


def elsewhere(claim: Claim) -> None:
    """Make it the claim of another machine."""
    claim.path.write_text(json.dumps({**json.loads(claim.path.read_text()), "host": "elsewhere"}))


def test_without_a_heartbeat_a_claim_from_elsewhere_dies(tmp_path: Path) -> None:
    ledger = create(tmp_path, a_plan(0))
    claim = ledger.claim(trial(0).trial_id)
    assert claim is not None
    elsewhere(claim)
    os.utime(claim.path, (0, time.time() - claims.LEASE_S - 1))
    assert not ledger.is_claimed(claim.trial_id)
    claim.beat()
    assert ledger.is_claimed(claim.trial_id)


def test_a_clock_that_is_ahead_keeps_no_claim_alive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = create(tmp_path, a_plan(0))
    claim = ledger.claim(trial(0).trial_id)
    assert claim is not None
    elsewhere(claim)
    ahead = time.time() + 3600
    now = time.monotonic()
    # Seconds from now, the moment of the last touch, and what that means.
    story = ((0, 0, True), (29, 0, True), (31, 0, False), (32, 31, True), (60, 31, True), (63, 31, False))
    for since, touched, alive in story:
        os.utime(claim.path, (0, ahead + touched))
        monkeypatch.setattr(time, "monotonic", lambda at=now + since: at)
        assert ledger.is_claimed(claim.trial_id) == alive, since


def test_a_clock_that_jumps_does_not_end_a_claim_here(tmp_path: Path) -> None:
    ledger = create(tmp_path, a_plan(0))
    claim = ledger.claim(trial(0).trial_id)
    assert claim is not None
    for jump in (-3600, 3600):
        os.utime(claim.path, (0, time.time() + jump))
        assert ledger.is_claimed(claim.trial_id)


@pytest.mark.parametrize("text", ["", '{"host": "els', "[]", '{"host": 1}'])
def test_a_claim_that_says_nothing_lives_as_long_as_a_lease(tmp_path: Path, text: str) -> None:
    ledger = create(tmp_path, a_plan(0))
    claim = ledger.claim(trial(0).trial_id)
    assert claim is not None
    claim.path.write_text(text)
    assert ledger.is_claimed(claim.trial_id)
    os.utime(claim.path, (0, time.time() - claims.LEASE_S - 1))
    assert not ledger.is_claimed(claim.trial_id)


def test_the_claim_of_a_dead_process_is_dead_at_once(tmp_path: Path) -> None:
    ledger = create(tmp_path, a_plan(0))
    code = "import sys; from pathlib import Path; from harness.ledger.ledger import Ledger\n"
    code += "assert Ledger.open(Path(sys.argv[1])).claim(sys.argv[2]).attempt == 1"
    subprocess.run([sys.executable, "-c", code, str(tmp_path), trial(0).trial_id], check=True)
    claim = ledger.claim(trial(0).trial_id)
    assert claim is not None
    assert claim.attempt == 2


@pytest.mark.parametrize(
    "change", [{"host": "elsewhere", "pid": 1}, {"system": "another container", "pid": 1}, {"born": 0.0}]
)
def test_a_process_number_counts_only_here_and_with_its_birth(tmp_path: Path, change: dict[str, object]) -> None:
    ledger = create(tmp_path, a_plan(0))
    claim = ledger.claim(trial(0).trial_id)
    assert claim is not None
    claim.path.write_text(json.dumps({**json.loads(claim.path.read_text()), **change}))
    assert ledger.is_claimed(claim.trial_id) == ("pid" in change)


def test_a_claim_that_is_just_being_written_counts(tmp_path: Path) -> None:
    ledger = create(tmp_path, a_plan(0))
    (ledger.trial_dir(trial(0).trial_id) / "claim.1.json").touch()
    assert ledger.claim(trial(0).trial_id) is None


def _grab(folder: Path, seeds: range) -> list[int]:
    """Claim and finish all that one gets: what a driver does, without the notebooks."""
    ledger = Ledger.open(folder)
    won = []
    for seed in seeds:
        if (claim := ledger.claim(trial(seed).trial_id)) is not None:
            assert ledger.finish(record(trial(seed)))
            won.append(seed)
            claim.release()  # even a dead claim on a done trial gives nobody a second go
    return won


@pytest.mark.slow
def test_many_takers_each_trial_once(tmp_path: Path) -> None:
    seeds = range(40)
    create(tmp_path, a_plan(*seeds))
    with get_context("spawn").Pool(3) as pool:
        won = pool.starmap(_grab, [(tmp_path, seeds)] * 3)
    assert sorted(seed for mine in won for seed in mine) == list(seeds)


def test_a_record_that_cannot_be_read_is_set_aside_by_the_next_run(tmp_path: Path) -> None:
    ledger = create(tmp_path, a_plan(0))
    path = ledger.trial_dir(trial(0).trial_id) / "record.json"
    path.write_text('{"schema_version": 1, "trial')
    with pytest.raises(InputError, match=r"record\.json: not a valid record: .+; run the sweep again"):
        list(ledger.records())
    again = create(tmp_path, a_plan(0))
    assert ids(again.pending()) == [0]
    assert path.with_name("record.aside.1.json").exists()


def test_a_file_system_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_self: Path, _target: Path) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    ledger = create(tmp_path, a_plan(0))
    assert ledger.finish(record(trial(0)))
    assert not ledger.finish(record(trial(0), "failed"))
    assert [r.status for r in ledger.records()] == ["ok"]


def test_a_full_disk_leaves_no_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    ledger = create(tmp_path, a_plan(0))
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        ledger.finish(record(trial(0)))
    assert ids(ledger.pending()) == [0]
    assert not list(tmp_path.rglob("*.part"))


def test_parents_run_again_when_their_checkpoint_was_not_kept(tmp_path: Path) -> None:
    grandparent = trial(0)
    parent = trial(1).model_copy(update={"parents": {"sft": (grandparent.trial_id,)}})
    alone = create(tmp_path, Plan("s", (Planned(grandparent), Planned(parent), Planned(trial(2)))))
    for of in (grandparent, parent, trial(2)):
        alone.finish(record(of))
    child = trial(3).model_copy(update={"parents": {"full": (parent.trial_id,), "other": (trial(2).trial_id,)}})
    ledger = create(tmp_path, Plan("s", (*alone.plan.rows, Planned(child))))
    ledger.artifact_dir(trial(2).trial_id).mkdir(parents=True)
    ledger.set_aside_parents({trial(2).trial_id})
    assert ids(ledger.pending()) == [3], "nobody asked for the child"
    ledger.set_aside_parents({child.trial_id})
    assert ids(ledger.pending()) == [0, 1, 3]


@pytest.mark.parametrize("status", ["failed", "oom"])
def test_a_parent_that_ended_badly_is_not_repeated(tmp_path: Path, status: str) -> None:
    child = trial(1).model_copy(update={"parents": {"full": (trial(0).trial_id,)}})
    ledger = create(tmp_path, Plan("s", (Planned(trial(0)), Planned(child))))
    ledger.finish(record(trial(0), status))
    ledger.set_aside_parents({child.trial_id})
    assert ids(ledger.pending()) == [1]
