"""A sweep that is disturbed on purpose, at random moments, by faults that a seed chooses."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import psutil
from helpers import tiny_models as tiny

from harness.errors import InputError
from harness.ledger.claims import this_system
from harness.ledger.ledger import Ledger
from harness.results import tables
from harness.results.record import Record

#: In the environment of every process of a campaign, and so of all that they start.
MARK = "TUNEBENCH_TEST_CAMPAIGN"
LEASE_S = 4.0
#: Seconds until the next fault, at most; a busy machine needs more, or nothing but starts is disturbed.
PAUSE_S = float(os.environ.get("TUNEBENCH_TEST_PAUSE_S") or 1.0)
#: What may differ between a disturbed run and an undisturbed one.
CIRCUMSTANCES = ["started_at", "duration_s", "attempt", "concurrent_trials"]
#: The reasons that a killed process leaves.
DEATHS = re.compile(
    r"the kernel died with SIGKILL|the trial's process ended with SIGKILL; see log\.txt"
    r"|the trial ended 3 times without a record .*|FileNotFoundError: .*"
)

TELL = """\
from harness.results.record import write_outcome
columns = {'valid_score': (7 * r + 3 * seed) % 11 / 11, 'primary_metric': 'accuracy', 'higher_is_better': True}
curve = [{'split': 'train', 'metric': 'loss', 'step': n, 'value': 1 / (n + r)} for n in (1, 2)]
write_outcome(trial_dir, columns, {'curves': curve})"""


def bench(folder: Path, trials: int) -> None:
    """A sweep of ``trials`` short trials whose outcome follows from their parameters."""
    tiny.bench(folder, methods={"full": {"act": "nap", "r": list(range(trials))}})
    tiny.notebook(folder / "notebooks" / "methods" / "full.ipynb", cells=(tiny.ACT, TELL))


def outcome(folder: Path) -> dict[str, pd.DataFrame]:
    """The tables of the sweep, without what the circumstances change."""
    found = tables.read(folder / "results" / "tiny")
    return {name: frame.drop(columns=CIRCUMSTANCES, errors="ignore") for name, frame in found.items()}


class Campaign:
    """One ledger, the drivers that work on it, and what is done to them."""

    def __init__(self, folder: Path, seed: int, cold: bool) -> None:
        self.folder = folder
        self.random = random.Random(seed)  # noqa: S311
        self.cold = cold
        self.mark = uuid.uuid4().hex
        self.drivers: list[subprocess.Popen[str]] = []
        self.hit: set[str] = set()
        """Trials of which a process was killed: those that may have failed."""
        self.broken: set[str] = set()
        """Trials whose record was damaged: those that may run again."""
        self.done: Counter[str] = Counter()
        """Fault -> how often it was injected."""
        self._first: dict[str, int] = {}

    @property
    def ledger(self) -> Ledger:
        return Ledger.open(self.folder / "results" / "tiny")

    def start(self, *options: str) -> subprocess.Popen[str]:
        """One more driver."""
        log = (self.folder / "drivers.log").open("a")
        driver = subprocess.Popen(
            [sys.executable, "-m", "harness.cli", "run", "tiny.yaml", "--jobs", "2", *options]
            + (["--cold"] if self.cold else []),
            cwd=self.folder,
            env={
                **os.environ,
                "TUNEBENCH_NOTEBOOKS": str(self.folder / "notebooks"),
                "TUNEBENCH_LEASE_S": str(LEASE_S),
                MARK: self.mark,
            },
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            text=True,
        )
        self.drivers.append(driver)
        return driver

    def disturb(self, faults: int, among: dict[str, Callable[[Campaign], bool]]) -> None:
        """Inject so many faults, each at a random moment of a run that goes on."""
        while self.done.total() < faults:
            self.keep_running()
            time.sleep(self.random.uniform(0.0, PAUSE_S))
            name = self.random.choice(sorted(among))
            if among[name](self):
                self.done[name] += 1
                self.watch()

    def keep_running(self) -> None:
        """Have a driver at work, and work for it."""
        self.drivers = [driver for driver in self.drivers if driver.poll() is None]
        if self.drivers:
            return
        if (self.folder / "results" / "tiny" / "plan.json").exists() and not self.ledger.pending():
            self.start("--retry").wait(120)
            for record in self.random.sample(self.records(), 8):  # work for more faults
                self.broken.add(record.trial_id)
                self.ledger.set_aside(record.trial_id)
        self.start()

    def watch(self) -> None:
        """No record is ever replaced, but the one that was damaged or did not end well."""
        for path in self.folder.glob("results/tiny/trials/*/record.json"):
            try:
                record, inode = Record.model_validate_json(path.read_bytes()), path.stat().st_ino
            except (ValueError, OSError):
                continue
            if path.parent.name != record.trial_id:
                continue
            if record.status == "ok" and record.trial_id not in self.broken:
                assert self._first.setdefault(record.trial_id, inode) == inode, f"{path} was written twice"
            elif record.status != "ok":
                assert record.status == "failed" and DEATHS.fullmatch(str(record.reason)), record.reason
                assert record.trial_id in self.hit, f"{record.trial_id} failed, and nobody had touched it"

    def finish(self) -> None:
        """Let the drivers end, then run what is left, and what was killed again."""
        for driver in self.drivers:
            driver.wait(300)
        self.watch()
        codes = []
        while 0 not in codes and len(codes) < 3:
            codes.append(self.start("--retry").wait(300))
        assert codes[-1] == 0, (self.folder / "drivers.log").read_text()[-2000:]
        assert not self.left(), "no process is left"

    def left(self) -> list[psutil.Process]:
        """Processes of this campaign that live."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get(MARK) == self.mark and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except psutil.Error:
                continue
        return found

    # What a fault needs to find.

    def driver(self) -> subprocess.Popen[str]:
        return self.random.choice(self.drivers)

    def trial_processes(self) -> list[tuple[psutil.Process, str]]:
        """The processes that hold a claim, with their trial."""
        found = []
        for path in self.folder.glob("results/tiny/trials/*/claim.*.json"):
            if os.path.lexists(path.parent / "record.json"):
                continue
            try:
                process = psutil.Process(json.loads(path.read_bytes())["pid"])
                if process.environ().get(MARK) == self.mark:
                    found.append((process, path.parent.name))
            except (ValueError, KeyError, TypeError, OSError, psutil.Error):
                continue
        return found

    def records(self) -> list[Record]:
        found = []
        for row in self.ledger.plan.rows:
            try:
                record = self.ledger.record(row.trial_id)
            except InputError:
                continue
            if record is not None:
                found.append(record)
        return found

    def idle(self) -> list[Path]:
        """Folders of trials that wait: no record, and no claim of anyone who lives."""
        if not (self.folder / "results" / "tiny" / "plan.json").exists():
            return []
        ledger = self.ledger
        # The last ones: the drivers are not about to take them.
        waiting = [row.trial_id for row in ledger.pending()][-4:]
        places = [ledger.trial_dir(trial_id) for trial_id in waiting if not ledger.is_claimed(trial_id)]
        return [place for place in places if place.is_dir()]

    def gone(self, processes: list[psutil.Process]) -> None:
        """Wait for the end of processes that nothing keeps alive any more."""
        _, alive = psutil.wait_procs(processes, timeout=10)
        assert not [p for p in alive if p.is_running() and p.status() != psutil.STATUS_ZOMBIE], (
            "they outlive the driver"
        )


# The faults. Each tells whether there was anything to disturb.


def _end_driver(campaign: Campaign, number: signal.Signals) -> bool:
    driver = campaign.driver()
    try:
        below = psutil.Process(driver.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return False
    driver.send_signal(number)
    code = driver.wait(60)
    # It may have been about to end by itself; or not yet ready to be interrupted.
    assert code in (-number, 130, 0, 1), code
    campaign.gone(below)
    return True


def driver_killed(campaign: Campaign) -> bool:
    return _end_driver(campaign, signal.SIGKILL)


def driver_interrupted(campaign: Campaign) -> bool:
    return _end_driver(campaign, signal.SIGINT)


def driver_terminated(campaign: Campaign) -> bool:
    return _end_driver(campaign, signal.SIGTERM)


def trial_killed(campaign: Campaign) -> bool:
    for process, trial_id in campaign.trial_processes():
        campaign.hit.add(trial_id)
        process.kill()
        return True
    return False


def kernel_killed(campaign: Campaign) -> bool:
    for process, trial_id in campaign.trial_processes():
        for kernel in process.children():
            campaign.hit.add(trial_id)
            kernel.kill()
            return True
    return False


def warm_parent_killed(campaign: Campaign) -> bool:
    for process in psutil.Process(campaign.driver().pid).children():
        with contextlib.suppress(psutil.Error):  # one that has just ended
            if "harness.runner.forkserver" in process.cmdline():
                process.kill()
                return True
    return False


def trial_terminated(campaign: Campaign) -> bool:
    """As a daemon does that watches over the machine's memory: nobody tells the driver."""
    for process, trial_id in campaign.trial_processes():
        campaign.hit.add(trial_id)
        process.terminate()
        return True
    return False


def _a_record(campaign: Campaign) -> Path | None:
    """The record of some trial, which may be damaged."""
    if not (records := campaign.records() if campaign.idle() else []):
        return None
    trial_id = campaign.random.choice(records).trial_id
    campaign.broken.add(trial_id)
    return campaign.ledger.trial_dir(trial_id) / "record.json"


def record_truncated(campaign: Campaign) -> bool:
    if (path := _a_record(campaign)) is None:
        return False
    with path.open("r+b") as stream:
        stream.truncate(campaign.random.randrange(path.stat().st_size))
    return True


def record_flipped(campaign: Campaign) -> bool:
    """One bit, anywhere but in the digit that would make it the record of a newer TuneBench."""
    if (path := _a_record(campaign)) is None:
        return False
    _flip(campaign, path, first=len('{"schema_version":3'))
    return True


def record_replaced(campaign: Campaign) -> bool:
    """By what is no record, or that of another trial, or of an older schema."""
    if (path := _a_record(campaign)) is None:
        return False
    others = campaign.folder.glob("results/tiny/trials/*/record.json")
    if (other := next((it for it in others if it != path), None)) is None:
        return False
    content = path.read_text(encoding="utf-8")
    match campaign.random.choice(["other", "older", "link", "link to itself", "folder", "deleted"]):
        case "other":
            content = other.read_text(encoding="utf-8")
        case "older":
            content = re.sub(r'"schema_version":\d+', '"schema_version":1', content)
        case kind:
            path.unlink()
            if kind == "folder":
                path.mkdir()
            elif kind != "deleted":
                path.symlink_to(path.name if kind == "link to itself" else "nothing")
            return True
    path.write_text(content, encoding="utf-8")
    return True


def folder_removed(campaign: Campaign) -> bool:
    """That of a trial that waits, or of one that has ended."""
    if not (places := campaign.idle()):
        return False
    path = campaign.random.choice(places)
    if campaign.random.random() < 0.5 and (record := _a_record(campaign)) is not None:
        path = record.parent
    campaign.hit.add(path.name)  # a driver may be about to take it
    shutil.rmtree(path, ignore_errors=True)
    return True


def plan_damaged(campaign: Campaign) -> bool:
    """The plan, the sweep, or what a waiting trial reads of itself."""
    if not (places := campaign.idle()):
        return False
    results = campaign.folder / "results" / "tiny"
    own = campaign.random.choice(places) / "trial.json"
    path = campaign.random.choice([results / "sweep.yaml", own, own])
    if campaign.random.random() < 0.5:
        path.unlink(missing_ok=True)
    elif path.exists():
        os.truncate(path, campaign.random.randrange(100))
    return True


def tables_damaged(campaign: Campaign) -> bool:
    paths = [*campaign.folder.glob("results/tiny/tables/*"), *campaign.folder.glob("results/tiny/tables.json")]
    if not paths:
        return False
    path = campaign.random.choice(sorted(paths))
    match campaign.random.choice(["cut", "flip", "delete"]):
        case "cut":
            os.truncate(path, path.stat().st_size // 2)
        case "flip":
            _flip(campaign, path)
        case _:
            path.unlink()
    return True


def stray_copies(campaign: Campaign) -> bool:
    """What people and programs that synchronise folders leave behind."""
    if not (places := campaign.idle()):
        return False
    place = campaign.random.choice(places)
    (place / "claim.1 (conflicted copy).json").write_text("{}")
    (place / "record (conflicted copy).json").write_text("{}")
    (place.parent / ".DS_Store").write_text("")
    if (record := _a_record(campaign)) is not None:
        shutil.copytree(record.parent, record.parent.with_suffix(".bak"), symlinks=True, dirs_exist_ok=True)
    return True


def _flip(campaign: Campaign, path: Path, first: int = 0) -> None:
    content = bytearray(path.read_bytes())
    content[campaign.random.randrange(first, len(content))] ^= 1 << campaign.random.randrange(8)
    path.write_bytes(content)


def claim_left_behind(campaign: Campaign) -> bool:
    """A claim whose owner is gone: a dead process here, a dead host with a clock of its own, a crash while writing."""
    if not (places := campaign.idle()):
        return False
    place = campaign.random.choice(places)
    path = place / f"claim.{campaign.ledger.attempts(place.name) + 1}.json"
    owner = {**this_system(), "pid": 2**22 - 1, "born": 1e9, "attempt": 1, "started_at": "2020-01-01T00:00:00"}
    variants: dict[str, tuple[str, float]] = {
        "dead process": (json.dumps(owner), 0),
        "process id used again": (json.dumps(owner | {"pid": 1}), 0),
        "dead host": (json.dumps(owner | {"host": "elsewhere"}), -3600),
        "dead host, clock ahead": (json.dumps(owner | {"host": "elsewhere"}), 3600),
        "empty": ("", 0),
        "half": ('{"host": "els', 0),
        "no claim at all": ("[]", 0),
    }
    text, shift = variants[campaign.random.choice(sorted(variants))]
    path.write_text(text)
    os.utime(path, (time.time() + shift, time.time() + shift))
    return True


def clock_jumped(campaign: Campaign) -> bool:
    """The claim of a trial that runs looks an hour older, or younger, than it is."""
    for _, trial_id in campaign.trial_processes():
        moment = time.time() + campaign.random.choice([-3600, 3600])
        attempt = campaign.ledger.attempts(trial_id)
        os.utime(campaign.ledger.trial_dir(trial_id) / f"claim.{attempt}.json", (moment, moment))
        return True
    return False


def driver_added(campaign: Campaign) -> bool:
    if len(campaign.drivers) < 3:
        campaign.start()
        return True
    return False


def leftovers(campaign: Campaign) -> bool:
    """What a crash leaves in a folder: half a notebook, half a record, and an outcome that is not this attempt's."""
    if not (places := campaign.idle()):
        return False
    place = campaign.random.choice(places)
    (place / "notebook.part.ipynb").write_text('{"cells": [')
    (place / ".record.json.elsewhere.1.part").write_text('{"trial_id": ')
    (place / "outcome.json").write_text('{"columns": {"valid_score": 99.0}, "tables": {}}')
    return True


ANYWHERE = {
    fault.__name__: fault
    for fault in (
        driver_killed,
        driver_interrupted,
        driver_terminated,
        trial_killed,
        kernel_killed,
        trial_terminated,
        record_truncated,
        record_flipped,
        record_replaced,
        folder_removed,
        plan_damaged,
        tables_damaged,
        stray_copies,
        claim_left_behind,
        clock_jumped,
        driver_added,
        leftovers,
    )
}
WARM = {f.__name__: f for f in (driver_killed, trial_killed, kernel_killed, warm_parent_killed, record_truncated)}
