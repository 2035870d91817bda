"""What is damaged, lost, foreign or left behind in a sweep's folder: the next run mends it, and says so."""

from __future__ import annotations

import json
import os
import platform
import shutil
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pandas as pd
import pytest
from helpers import command_line
from helpers import tiny_models as tiny
from helpers.command_line import Call
from helpers.lengths import long_after

from harness.estimate import planned
from harness.files import damaged_file, missing_file, write_checksums
from harness.ledger import parents
from harness.ledger.ledger import Ledger
from harness.results import tables
from harness.results.files import where
from harness.results.record import Outcome, Record
from harness.results.schema import SCHEMA_VERSION, TABLES
from harness.runner import driver, executors
from harness.runner.endings import OK, TAKEN_AWAY, Ending, of_process
from harness.runner.run import run
from harness.sweeps import spec as sweep

pytestmark = pytest.mark.slow

FOUR = {"methods": {"full": {"r": [1, 2, 3, 4]}}}
FAMILY = {"methods": {"full": {}, "bitdelta": {"scale": [1.0, 2.0]}}, "keep_artifacts": True}


class Factory:
    """What makes an executor: the one that is there."""

    def __init__(self, executor: Here) -> None:
        self._executor = executor

    def __call__(self, *_: object) -> Here:
        return self._executor

    def check(self, _resources: object) -> None:
        return


class Here:
    """An executor whose trials end when they are submitted; ``act`` may do something to each first.

    What ``act`` gives back is how the job ends, without a record; None: with one.
    """

    act: Callable[[Ledger, str], Ending | None] = staticmethod(lambda _ledger, _trial_id: None)

    def __init__(self) -> None:
        self.ran: list[str] = []

    class Job:
        def __init__(self, ending: Ending) -> None:
            self.ending = ending

        def waits(self) -> bool:
            return False

        def ended(self) -> Ending | None:
            return self.ending

    def room(self) -> int:
        return 1

    def submit(self, trial_dirs: Sequence[Path]) -> Sequence[Here.Job]:
        return [self.one(trial_dir) for trial_dir in trial_dirs]

    def one(self, trial_dir: Path) -> Here.Job:
        self.ran.append(trial_dir.name)
        ledger, _ = Ledger.of_trial(trial_dir)
        ending = self.act(ledger, trial_dir.name)
        if ending is None:
            ledger.finish(a_record(ledger, trial_dir.name))
        return self.Job(ending or OK)

    def close(self) -> None:
        return


def a_record(ledger: Ledger, trial_id: str) -> Record:
    curve = [{"split": "train", "metric": "loss", "step": n, "value": 1 / n} for n in range(1, 200)]
    return Record(
        trial_id=trial_id,
        sweep="tiny",
        trial=ledger.row(trial_id).trial,
        status="ok",
        attempt=1,
        started_at=datetime.now(UTC),
        outcome=Outcome(columns={"valid_score": 0.5, "primary_metric": "accuracy"}, tables={"curves": curve}),
    )


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Here:
    executor = Here()
    monkeypatch.setattr(executors, "factory", lambda _name: Factory(executor))
    monkeypatch.setattr(driver, "_POLL_S", 0.0)
    return executor


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Run the command line in this process, in a folder with ``tiny.yaml``: exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TUNEBENCH_NOTEBOOKS", str(tmp_path / "notebooks"))
    tiny.bench(tmp_path, **FOUR)

    return partial(command_line.run, monkeypatch, capsys)


def a_sweep(folder: Path, act: Callable[[Ledger, str], Ending | None], **changes: object) -> Path:
    """The results of a sweep whose trials have run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TUNEBENCH_NOTEBOOKS", str(folder / "notebooks"))
        settings = sweep.load(tiny.bench(folder, **changes))
        executor = Here()
        executor.act = act
        patch.setattr(executors, "factory", lambda _name: Factory(executor))
        limits = planned.limits(force=True)
        finished = run(settings, folder / "results" / "tiny", judge=lambda plan: planned.judge(plan, limits))
    assert finished.all_well
    return finished.ledger.folder


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of the sweep of :func:`call`."""
    return a_sweep(tmp_path_factory.mktemp("four"), Here.act, **FOUR)


@pytest.fixture
def out(tmp_path: Path, four: Path, here: Here, call: Call) -> Path:
    """The folder of a sweep of four trials that have run."""
    return shutil.copytree(four, tmp_path / "results" / "tiny")


def place(out: Path, number: int = 1) -> Path:
    """The folder of one of the trials."""
    return out / "trials" / Ledger.open(out).plan.rows[number].trial_id


def rows(out: Path) -> list[str]:
    return list(tables.read(out)["trials"].trial_id)


def files(out: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}


def flipped(path: Path, where: float) -> None:
    content = bytearray(path.read_bytes())
    content[int(where * (len(content) - 1))] ^= 1
    path.write_bytes(content)


def with_version(path: Path, version: int) -> None:
    text = path.read_text()
    path.write_text(text.replace(f'"schema_version":{SCHEMA_VERSION}', f'"schema_version":{version}'))


def edited(path: Path) -> None:
    document = json.loads(path.read_text())
    document["outcome"]["columns"]["valid_score"] = 0.9
    path.write_text(json.dumps(document))


def gone_over_to(path: Path, make: Callable[[Path], object]) -> None:
    path.unlink()
    make(path)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "cut": lambda path: os.truncate(path, 500),
    "empty": lambda path: path.write_bytes(b""),
    "first byte": lambda path: flipped(path, 0),
    "head": lambda path: flipped(path, 0.02),
    "middle": lambda path: flipped(path, 0.5),
    "checksum": lambda path: flipped(path, 0.997),
    "last byte": lambda path: flipped(path, 1),
    "edited by hand": edited,
    "not JSON": lambda path: path.write_text("<html>"),
    "deep": lambda path: path.write_text("[" * 100_000),
    "older schema": lambda path: with_version(path, SCHEMA_VERSION - 1),
    "link to nothing": lambda path: gone_over_to(path, lambda it: it.symlink_to("nothing")),
    "link to itself": lambda path: gone_over_to(path, lambda it: it.symlink_to(it.name)),
    "folder": lambda path: gone_over_to(path, Path.mkdir),
}


# Records


@pytest.mark.parametrize("damage", long_after(3, DAMAGES))
def test_a_damaged_record_is_set_aside_and_its_trial_repeated(out: Path, here: Here, call: Call, damage: str) -> None:
    path = place(out) / "record.json"
    DAMAGES[damage](path)
    code, _, err = call("run", "tiny.yaml", "--force")
    assert (code, here.ran) == (0, [path.parent.name]), err
    (line,) = err.splitlines()
    assert line.startswith(f"results/tiny/trials/{path.parent.name}/record.json: ")
    assert line.endswith("set aside as record.aside.1.json, and the trial runs again")
    assert os.path.lexists(path.with_name("record.aside.1.json"))
    assert len(rows(out)) == 4
    assert call("run", "tiny.yaml", "--force") == (0, "nothing to do: 4 trials done in results/tiny\n", "")


def test_the_record_of_another_trial_is_set_aside(out: Path, here: Here, call: Call) -> None:
    shutil.copy(place(out, 0) / "record.json", place(out, 1) / "record.json")
    code, _, err = call("run", "tiny.yaml", "--force")
    assert (code, here.ran) == (0, [place(out, 1).name])
    assert f"is the record of trial '{place(out, 0).name}', not of '{place(out, 1).name}'; set aside" in err


@pytest.mark.parametrize("command", ["run", "tables", "report", "status"])
def test_an_older_tunebench_refuses_a_newer_record(out: Path, here: Here, call: Call, command: str) -> None:
    with_version(place(out) / "record.json", SCHEMA_VERSION + 1)
    DAMAGES["cut"](place(out, 2) / "record.json")
    before = files(out)
    code, said, err = call(command, "tiny.yaml" if command == "run" else "results/tiny")
    assert (code, said, here.ran) == (2, "", [])
    newer = f"schema version {SCHEMA_VERSION + 1} is that of a newer TuneBench, this one writes {SCHEMA_VERSION}"
    assert err.splitlines()[-1] == f"error: results/tiny/trials/{place(out).name}/record.json: {newer}; " + (
        "use the newer one, or another folder"
    )
    assert files(out) == before


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"schema_version": SCHEMA_VERSION + 1}, "schema"),
        ({"trials": [{"trial": {"protocol_version": 99}}]}, "protocol"),
    ],
)
def test_an_older_tunebench_refuses_a_newer_plan(
    out: Path, here: Here, call: Call, change: dict[str, object], what: str
) -> None:
    path = out / "plan.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    code, said, err = call("run", "tiny.yaml", "--force")
    assert (code, said, here.ran) == (2, "", [])
    assert f"plan.json: {what} version" in err and "newer TuneBench" in err


@pytest.mark.parametrize("damage", long_after(1, ["middle", "cut", "link to nothing"]))
def test_a_record_that_is_damaged_while_others_run_is_repeated(out: Path, here: Here, call: Call, damage: str) -> None:
    first, last = place(out, 0), place(out, 3)
    (last / "record.json").unlink()

    def act(_ledger: Ledger, trial_id: str) -> None:
        if trial_id == last.name:
            DAMAGES[damage](first / "record.json")

    here.act = act
    code, _, err = call("run", "tiny.yaml", "--force")
    assert (code, here.ran) == (0, [last.name, first.name]), err
    assert "set aside as record.aside.1.json" in err
    assert len(rows(out)) == 4


def test_a_disk_that_damages_every_record_ends_the_run(out: Path, here: Here, call: Call) -> None:
    damaged = place(out)
    (damaged / "record.json").unlink()

    def act(ledger: Ledger, trial_id: str) -> Ending:
        ledger.finish(a_record(ledger, trial_id))
        flipped(damaged / "record.json", 0.5)
        return OK

    here.act = act
    code, _, err = call("run", "tiny.yaml", "--force")
    assert (code, here.ran) == (1, [damaged.name] * 3)
    assert err.count("left out of the tables") == 3
    assert len(rows(out)) == 3


def test_status_counts_a_damaged_record_as_none(out: Path, call: Call) -> None:
    DAMAGES["cut"](place(out) / "record.json")
    code, said, err = call("status", "results/tiny")
    assert code == 0
    assert [line.split() for line in said.splitlines()[1:]] == [["ok", "3"], ["pending", "1"]]
    assert "run the sweep again to set it aside and repeat the trial" in err


def test_a_new_record_that_took_the_place_of_a_damaged_one_stays(out: Path) -> None:
    """Another driver may have mended it between the look and the act."""
    ledger, path = Ledger.open(out), place(out) / "record.json"
    good = path.read_bytes()
    DAMAGES["cut"](path)
    with pytest.raises(ValueError, match="not a valid record") as damage:
        ledger.record(path.parent.name)
    path.write_bytes(good)
    ledger._set_aside_damaged(path.parent.name, damage.value)  # type: ignore[arg-type]
    assert path.read_bytes() == good


# Tables


def test_a_kill_between_the_last_record_and_the_tables(out: Path, here: Here, call: Call) -> None:
    ledger = Ledger.open(out)
    lost = place(out)
    (lost / "record.json").unlink()
    assert call("run", "tiny.yaml", "--force")[0] == 0
    tables_before = {path.name: path.read_bytes() for path in (out / "tables").iterdir()}
    record = ledger.record(lost.name)
    assert record is not None
    ledger.set_aside(lost.name)
    changed = record.outcome.model_copy(update={"columns": {"valid_score": 0.75}})  # type: ignore[union-attr]
    ledger.finish(record.model_copy(update={"outcome": changed}))
    code, said, err = call("run", "tiny.yaml", "--force")
    assert (code, said, err) == (0, "no trial to run; tables made again from 4 records in results/tiny\n", "")
    assert {path.name: path.read_bytes() for path in (out / "tables").iterdir()} != tables_before
    assert tables.read(out)["trials"].set_index("trial_id").valid_score[lost.name] == 0.75


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        *(("trials.parquet", kind) for kind in ("cut", "sources damaged")),
        ("trials.csv", "flipped"),
        *(
            pytest.param(name, kind, marks=pytest.mark.long)
            for name, kind in (
                *(("trials.parquet", kind) for kind in ("folder gone", "sources gone", "deleted")),
                ("curves.parquet", "flipped"),
                ("scores.csv", "deleted"),
            )
        ),
    ],
)
def test_tables_are_made_again_when_they_are_damaged(out: Path, call: Call, kind: str, name: str) -> None:
    path = out / "tables" / name
    good = path.read_bytes()
    match kind:
        case "cut":
            os.truncate(path, len(good) // 2)
        case "flipped":
            flipped(path, 0.5)
        case "deleted":
            path.unlink()
        case "folder gone":
            shutil.rmtree(out / "tables")
        case "sources gone":
            (out / "tables.json").unlink()
        case _:
            (out / "tables.json").write_text('{"schema_version":')
    assert call("run", "tiny.yaml", "--force")[:2] == (
        0,
        "no trial to run; tables made again from 4 records in results/tiny\n",
    )
    assert path.read_bytes() == good
    assert call("run", "tiny.yaml", "--force")[1].startswith("nothing to do")


def test_a_report_makes_stale_tables_again(out: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    from harness import report

    monkeypatch.setattr(report, "build", lambda folder, _out: len(tables.read(folder)["trials"]))
    os.truncate(out / "tables" / "trials.parquet", 100)
    assert call("report", "results/tiny") == (0, "4\n", "")
    stamp = (out / "tables" / "trials.parquet").stat().st_mtime_ns
    assert call("report", "results/tiny") == (0, "4\n", "")
    assert (out / "tables" / "trials.parquet").stat().st_mtime_ns == stamp, "they are not made twice"
    shutil.rmtree(out / "trials")
    assert call("report", "results/tiny") == (0, "4\n", ""), "tables alone have nothing to follow"


def test_newly_planned_skips_are_rows(out: Path, here: Here, call: Call) -> None:
    document = (out.parents[1] / "tiny.yaml").read_text() + "objectives: [classification, sft]\n"
    (out.parents[1] / "tiny.yaml").write_text(document)
    code, said, err = call("run", "tiny.yaml", "--force")
    assert (code, here.ran, err) == (0, [], "")
    assert said.startswith("no trial to run; tables made again from")
    assert set(tables.read(out)["trials"].status) == {"ok", "skipped"}


def test_one_bad_record_is_left_out_of_the_tables_and_said(out: Path, here: Here, call: Call) -> None:
    bad = place(out)
    flipped(bad / "record.json", 0.5)
    shutil.copytree(place(out, 2), place(out, 2).with_suffix(".bak"))
    (out / "trials" / ".DS_Store").write_text("x")
    code, said, err = call("tables", "results/tiny")
    assert code == 0 and "trials.parquet: 3 rows" in said
    assert [line.partition("trials/")[2].partition(": ")[0] for line in err.splitlines()] == [
        f"{bad.name}/record.json",
        f"{place(out, 2).name}.bak/record.json",
    ]
    assert all(line.startswith("left out of the tables: ") for line in err.splitlines())
    assert bad.name not in rows(out)
    assert call("run", "tiny.yaml", "--force")[0] == 0
    assert here.ran == [bad.name]
    assert len(rows(out)) == 4


def test_a_value_that_does_not_fit_is_left_out_and_repeated(out: Path, here: Here, call: Call) -> None:
    path = place(out) / "record.json"
    document = json.loads(path.read_text())
    del document["sha256"]
    document["outcome"]["tables"]["scores"] = [{"split": "test", "metric": "m", "value": 1.0, "stderr": -1.0, "n": 1}]
    path.write_text(json.dumps(document))
    code, said, err = call("tables", "results/tiny")
    assert code == 0 and "trials.parquet: 3 rows" in said
    assert "record.json: does not fit into the tables: table 'scores', column 'stderr'" in err
    code, _, err = call("run", "tiny.yaml", "--force")
    assert (code, here.ran, len(rows(out))) == (0, [path.parent.name], 4), err


def test_tables_stay_when_no_record_can_be_used(out: Path, call: Call) -> None:
    for number in range(4):
        DAMAGES["older schema"](place(out, number) / "record.json")
    code, said, err = call("tables", "results/tiny")
    assert (code, said) == (2, "")
    assert err.splitlines()[-1] == "error: results/tiny: no record here can be used; run the sweep again"
    assert len(rows(out)) == 4


def test_tables_stay_when_there_is_no_record_any_more(out: Path, call: Call) -> None:
    gone = [place(out, number).name for number in range(4)]
    for name in gone[:3]:
        shutil.rmtree(out / "trials" / name)
    assert len(rows(out)) == 4
    _, _, err = call("tables", "results/tiny")
    assert err == f"no longer in the tables, as their records are gone: {', '.join(sorted(gone[:3]))}\n"
    assert rows(out) == [gone[3]]
    shutil.rmtree(out / "trials" / gone[3])
    code, said, err = call("tables", "results/tiny")
    assert (code, said) == (2, "")
    assert err.splitlines()[-1] == "error: results/tiny: no record here can be used; run the sweep again"
    assert rows(out) == [gone[3]]


@pytest.mark.parametrize(
    "command",
    [
        ("compare", "results/tiny", "results/tiny"),
        ("recommend", "results/tiny", "--model", "minilm-l6-22m", "--task", "trec"),
    ],
)
def test_what_reads_tables_makes_them_first_where_records_are_newer(
    out: Path, call: Call, command: tuple[str, ...]
) -> None:
    shutil.rmtree(out / "tables")
    call(*command)
    assert len(rows(out)) == 4


def test_tables_that_cannot_be_read_are_one_line(out: Path) -> None:
    path = out / "tables" / "curves.parquet"
    content = bytearray(path.read_bytes())
    content[4 : len(content) // 2] = bytes(len(content) // 2 - 4)
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"curves\.parquet: cannot be read as Parquet: .*; make the tables again"):
        tables.read(out)["curves"]
    with pytest.raises(ValueError, match=r"curves\.parquet: cannot be read as Parquet"):
        where(tables.read(out), "curves", rows(out))
    pd.DataFrame({"trial_id": ["a"]}).to_parquet(out / "tables" / "scores.parquet")
    with pytest.raises(ValueError, match=r"scores\.parquet: another program than TuneBench wrote it"):
        tables.read(out)
    assert set(TABLES) >= {"curves", "scores"}


def test_what_killed_processes_left_half_written_goes(out: Path, here: Here, call: Call) -> None:
    places = [out / "tables", out, place(out)]
    for folder in places:
        (folder / f".x.json.{platform.node()}.{2**22 + 1}.part").write_text("{")
        (folder / f".x.json.elsewhere.{2**22 + 1}.part").write_text("{")
        (folder / f".x.json.{platform.node()}.{os.getppid()}.part").write_text("{")
    (place(out) / "record.json").unlink()
    assert call("run", "tiny.yaml", "--force")[0] == 0
    for folder in places:
        left = {path.name for path in folder.glob(".*.part")}
        assert left == {f".x.json.elsewhere.{2**22 + 1}.part", f".x.json.{platform.node()}.{os.getppid()}.part"}


# The plan, the sweep and the folders


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        *(("plan.json", kind) for kind in ("deleted", "cut", "not a mapping")),
        *(("sweep.yaml", kind) for kind in ("deleted", "empty", "not a mapping")),
        *(("trial.json", kind) for kind in ("deleted", "cut")),
    ],
)
def test_what_is_planned_is_written_anew(out: Path, here: Here, call: Call, name: str, kind: str) -> None:
    path = (place(out) if name == "trial.json" else out) / name
    good, lost = path.read_bytes(), place(out)
    (lost / "record.json").unlink()
    match kind:
        case "deleted":
            path.unlink()
        case "empty":
            path.write_text("")
        case "cut":
            path.write_bytes(good[: len(good) // 2])
        case _:
            path.write_text("[1]")
    code, _, err = call("run", "tiny.yaml", "--force")
    assert (code, here.ran) == (0, [lost.name]), err
    assert path.read_bytes() == good
    assert ("plan.json: cannot be read; written anew" in err) == (name == "plan.json" and kind != "deleted")


def test_a_folder_without_its_plan_is_still_that_of_its_sweep(out: Path, call: Call) -> None:
    other = out.parents[1] / "other.yaml"
    other.write_text((out.parents[1] / "tiny.yaml").read_text().replace("name: tiny", "name: other"))
    refusal = "error: results/tiny: holds the sweep 'tiny', not 'other'; choose another folder\n"
    for lost in ("plan.json", "sweep.yaml"):
        (out / lost).write_text("")
        assert call("run", "other.yaml", "--force", "--out", "results/tiny") == (2, "", refusal)


def test_what_is_lost_while_trials_wait_makes_none_fail(out: Path, here: Here, call: Call) -> None:
    for number in range(4):
        (place(out, number) / "record.json").unlink()
    last = place(out, 3)

    def act(_ledger: Ledger, trial_id: str) -> None:
        for path in (out / "sweep.yaml", out / "plan.json", last / "trial.json"):
            path.write_text("")
        if trial_id == place_of_third.name:
            shutil.rmtree(last)

    place_of_third = place(out, 2)
    here.act = act
    code, _, err = call("run", "tiny.yaml", "--force")
    assert (code, len(here.ran)) == (0, 4), err
    assert set(tables.read(out)["trials"].status) == {"ok"}
    assert call("status", "results/tiny")[0] == 2
    code, _, err = call("status", "results/tiny")
    assert err == "error: results/tiny/plan.json: cannot be read as JSON; run the sweep again to write it anew\n"
    assert call("run", "tiny.yaml", "--force")[0] == 0
    assert call("status", "results/tiny")[0] == 0


@pytest.mark.parametrize(
    "name", ["claim.1 (conflicted copy).json", "claim.x.json", "claim..json", "claim.1.json~", "claim.0.json"]
)
def test_stray_copies_of_claims_count_for_nothing(out: Path, here: Here, call: Call, name: str) -> None:
    stray = place(out)
    (stray / "record.json").unlink()
    (stray / name).write_text("{}")
    assert Ledger.open(out).attempts(stray.name) == 0
    assert call("run", "tiny.yaml", "--force")[0] == 0
    assert here.ran == [stray.name]


@pytest.mark.parametrize("make", [Path.mkdir, lambda path: path.symlink_to("nothing")])
def test_a_claim_that_is_no_file_is_dead_in_time(out: Path, make: Callable[[Path], object]) -> None:
    ledger, stray = Ledger.open(out), place(out)
    (stray / "record.json").unlink()
    make(stray / "claim.1.json")
    if (stray / "claim.1.json").is_dir():
        os.utime(stray / "claim.1.json", (0, 0))
    assert ledger.started_at(stray.name) is None
    claim = ledger.claim(stray.name)
    assert claim is not None and claim.attempt == 2


# Trials that end without a record, and parents


@pytest.mark.parametrize("code", long_after(2, [-15, 130, 2, 0]))
def test_a_trial_that_ends_without_a_record_runs_three_times(out: Path, here: Here, call: Call, code: int) -> None:
    lost = place(out)
    (lost / "record.json").unlink()

    def act(ledger: Ledger, trial_id: str) -> Ending:
        claim = ledger.claim(trial_id)
        assert claim is not None
        claim.release()
        return of_process(code)

    here.act = act
    ended, _, err = call("run", "tiny.yaml", "--force")
    assert (ended, here.ran) == (1, [lost.name] * 3), err
    how = {-15: "SIGTERM", 130: "exit code 130", 2: "exit code 2"}.get(code)
    at_last = f" (at last, the trial's process ended with {how})" if how else ""
    record = Ledger.open(out).record(lost.name)
    assert record is not None
    assert (record.status, record.attempt) == ("failed", 3)
    assert record.reason == f"the trial ended 3 times without a record{at_last}; see log.txt"
    # The next run starts to count anew.
    here.ran.clear()
    assert call("run", "tiny.yaml", "--force", "--retry")[0] == 1
    assert here.ran == [lost.name] * 3


def test_two_fruitless_attempts_are_forgiven(out: Path, here: Here, call: Call) -> None:
    lost = place(out)
    (lost / "record.json").unlink()
    here.act = lambda _ledger, _trial_id: of_process(-15) if len(here.ran) < 3 else None
    assert call("run", "tiny.yaml", "--force")[0] == 0
    assert here.ran == [lost.name] * 3


def saves(ledger: Ledger, trial_id: str) -> None:
    folder = ledger.artifact_dir(trial_id)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "trained.safetensors").write_bytes(b"weights")
    write_checksums(folder)


def test_what_its_node_takes_away_is_no_attempt(out: Path, here: Here, call: Call) -> None:
    lost = place(out)
    (lost / "record.json").unlink()
    here.act = lambda _ledger, _trial_id: TAKEN_AWAY if len(here.ran) < 6 else None
    assert call("run", "tiny.yaml", "--force")[0] == 0
    assert here.ran == [lost.name] * 6


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return a_sweep(tmp_path_factory.mktemp("three"), saves, **FAMILY)


@pytest.fixture
def family(tmp_path: Path, three: Path, here: Here, call: Call) -> tuple[Path, str, str]:
    """A sweep of a parent and two children that have run: its folder, the parent, and the second child."""
    tiny.bench(tmp_path, **FAMILY)
    out = shutil.copytree(three, tmp_path / "results" / "tiny")
    parent, *_, child = [row.trial_id for row in Ledger.open(out).plan.rows]
    return out, parent, child


@pytest.mark.parametrize("damage", long_after(2, ["deleted", "cut", "link to nothing", "folder gone"]))
def test_a_parent_whose_record_goes_away_while_its_child_waits_runs_again(
    family: tuple[Path, str, str], here: Here, call: Call, damage: str
) -> None:
    out, parent, child = family
    first = here.ran
    for row in Ledger.open(out).plan.rows[1:]:
        Ledger.open(out).set_aside(row.trial_id)
    path = out / "trials" / parent / "record.json"

    def act(ledger: Ledger, trial_id: str) -> None:
        saves(ledger, trial_id)
        if len(first) == 1:  # the first child has just run, the second waits
            match damage:
                case "deleted":
                    path.unlink()
                case "folder gone":
                    shutil.rmtree(path.parent)
                case _:
                    DAMAGES[damage](path)

    here.act = act
    code, _, err = call("run", "tiny.yaml", "--force")
    assert code == 0, err
    assert here.ran[1:] == [parent, child]
    assert f"trial {parent} runs again: its record is gone, and trial {child} starts from it" in err


@pytest.mark.parametrize("damage", ["flipped", "deleted", "folder gone"])
def test_a_parent_whose_artefact_is_damaged_runs_again(
    family: tuple[Path, str, str], here: Here, call: Call, damage: str
) -> None:
    out, parent, child = family
    ledger = Ledger.open(out)
    ledger.set_aside(child)
    folder = ledger.artifact_dir(parent)
    match damage:
        case "flipped":
            flipped(folder / "trained.safetensors", 0.5)
        case "deleted":
            (folder / "trained.safetensors").unlink()
        case _:
            shutil.rmtree(folder)

    def act(ledger: Ledger, trial_id: str) -> Ending | None:
        try:
            parents.require(ledger, ledger.row(trial_id).trial)  # as the process of a trial does before its claim
        except ValueError:
            return of_process(2)
        return saves(ledger, trial_id)  # type: ignore[func-returns-value]

    here.act = act
    code, _, err = call("run", "tiny.yaml", "--force")
    assert (code, [trial for trial in here.ran if trial == parent]) == (0, [parent]), err
    assert here.ran[-2:] == [parent, child]
    assert damaged_file(folder) is None


def test_an_artefact_that_went_away_while_its_child_waits_is_made_again(
    family: tuple[Path, str, str], here: Here
) -> None:
    out, parent, child = family
    ledger = Ledger.open(out)
    trial = ledger.row(child).trial
    shutil.rmtree(ledger.artifact_dir(parent))
    parents.require(ledger, trial)  # this parent has never said that it saved one
    ledger.set_aside(parent)
    saved = Outcome(columns={"checkpoint_bytes": 7})
    ledger.finish(a_record(ledger, parent).model_copy(update={"outcome": saved}))
    with pytest.raises(ValueError, match=f"trial {child}: its parent {parent} has to run first"):
        parents.require(ledger, trial)
    assert not ledger.is_done(parent)


def test_checksums_tell_what_is_missing_and_what_is_damaged(tmp_path: Path) -> None:
    for name in ("a", "b c"):
        (tmp_path / name).write_text(name)
    assert (missing_file(tmp_path), damaged_file(tmp_path)) == (None, None), "no checksums, no verdict"
    write_checksums(tmp_path)
    assert (tmp_path / "SHA256SUMS").read_text().splitlines()[0] == (
        "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb  a"
    )
    assert (missing_file(tmp_path), damaged_file(tmp_path)) == (None, None)
    flipped(tmp_path / "b c", 0)
    assert (missing_file(tmp_path), damaged_file(tmp_path)) == (None, "b c")
    (tmp_path / "a").unlink()
    assert (missing_file(tmp_path), damaged_file(tmp_path)) == ("a", "a")
    (tmp_path / "SHA256SUMS").write_bytes(b"\xff\x00")
    assert missing_file(tmp_path) is not None
