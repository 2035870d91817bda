"""Run the tests on every mutant: ``make mutants``.

A mutant is killed when a test that it names fails; it survives when all of them pass. Each runs on a copy of the
repository, in a process of its own that is forked from one with the large libraries imported. Before that every test
runs once on the unchanged copy: a test that fails there would kill anything.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import itertools
import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from queue import SimpleQueue

from mutants.mutant import ROOT, Mutant, read_all

#: Share of the mutants that must be killed.
AIM = 0.97
#: Seconds after which a mutant counts as killed: it makes the code run without end.
LIMIT_S = 240.0
#: Imported once, before the fork; importing runs no tensor operation, after which a fork would hang.
_LIBRARIES = [
    "torch",
    "transformers",
    "peft",
    "trl",
    "datasets",
    "pandas",
    "pyarrow",
    "scipy.stats",
    "hypothesis",
    "pytest",
]

_KILLED, _SURVIVED, _BROKEN = "killed", "survived", "broken"


@dataclass(frozen=True)
class Result:
    """What the tests said of one mutant."""

    mutant: Mutant
    verdict: str
    seconds: float
    output: str


def main() -> int:
    """Exit code 0 when at least :data:`AIM` of the mutants are killed and none is broken, else 1."""
    parser = argparse.ArgumentParser(description="Break the code line by line and see whether the tests notice.")
    parser.add_argument("--only", default="", help="regular expression on 'file: before -> after'")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    asked = parser.parse_args()
    mutants = [mutant for mutant in read_all() if re.search(asked.only, mutant.name)]
    if faults := [f"{mutant.name}: {fault}" for mutant in mutants if (fault := mutant.fault())]:
        print("\n".join(faults))
        return 1
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        results = _run_all([m for m in mutants if m.equivalent is None], Path(folder), asked.jobs)
    return _report(results, sum(m.equivalent is not None for m in mutants))


def _report(results: Sequence[Result], equivalent: int) -> int:
    killed = sum(result.verdict == _KILLED for result in results)
    for result in results:
        if result.verdict != _KILLED:
            print(f"\n{result.verdict.upper()}: {result.mutant.name}\n  {', '.join(result.mutant.tests)}")
            if result.verdict == _BROKEN:
                print(result.output[-2000:])
    share = killed / len(results) if results else 0.0
    print(f"\n{killed} of {len(results)} mutants killed: {share:.1%}, aim {AIM:.0%}; {equivalent} equivalent, not run")
    return 0 if share >= AIM and not any(result.verdict == _BROKEN for result in results) else 1


def _run_all(mutants: Sequence[Mutant], folder: Path, jobs: int) -> list[Result]:
    copies: SimpleQueue[Path] = SimpleQueue()
    for number in range(jobs):
        copies.put(_copy(folder / str(number)))
    for library in _LIBRARIES:
        __import__(library)

    def one(mutant: Mutant) -> Result:
        with _taken(copies) as copy:
            result = _tried(mutant, copy)
        print(f"{result.verdict:>9} {result.seconds:6.1f} s  {mutant.name[:150]}", flush=True)
        return result

    def unchanged(tests: Sequence[str]) -> tuple[int | None, str]:
        with _taken(copies) as copy:
            return _pytest(tests, copy, limit_s=LIMIT_S * 8)

    with ThreadPoolExecutor(jobs) as pool:
        for code, output in pool.map(unchanged, _by_file(mutants)):
            if code != 0:
                print(output[:6000])
                raise SystemExit("the tests fail on the unchanged code")
        return list(pool.map(one, mutants))


@contextlib.contextmanager
def _taken(copies: SimpleQueue[Path]) -> Iterator[Path]:
    """A copy that nobody else uses meanwhile."""
    copy = copies.get()
    try:
        yield copy
    finally:
        copies.put(copy)


def _by_file(mutants: Sequence[Mutant]) -> list[list[str]]:
    """All tests that the mutants name, a list for each file."""
    tests = sorted({test for mutant in mutants for test in mutant.tests})
    return [list(group) for _, group in itertools.groupby(tests, key=lambda test: test.partition("::")[0])]


def _copy(target: Path) -> Path:
    """The files of the working tree that git does not ignore, without history."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
        text=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (source := ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target / name)
    return target


def _tried(mutant: Mutant, copy: Path) -> Result:
    path, start = copy / mutant.file, time.perf_counter()
    whole = path.read_text(encoding="utf-8")
    path.write_text(whole.replace(mutant.before, mutant.after), encoding="utf-8")
    try:
        code, output = _pytest(mutant.tests, copy, LIMIT_S)
    finally:
        path.write_text(whole, encoding="utf-8")
    # 1: a test failed, None: no end. Anything else, such as code that cannot be imported, says nothing of the tests.
    verdict = {0: _SURVIVED, 1: _KILLED, None: _KILLED}.get(code, _BROKEN)
    return Result(mutant, verdict, time.perf_counter() - start, output)


def _pytest(tests: Sequence[str], copy: Path, limit_s: float) -> tuple[int | None, str]:
    """Exit code of pytest in ``copy`` and what it wrote; None when it did not end in time."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(theirs, list(tests), copy))
    process.start()
    theirs.close()
    try:
        return ours.recv() if ours.poll(limit_s) else (None, "")
    except EOFError:
        return (process.exitcode or 3, "the process ended without a word")
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid or 0, signal.SIGKILL)
        process.join()


def _child(answer: Connection, tests: Sequence[str], copy: Path) -> None:
    import pytest

    os.setsid()
    os.chdir(copy)
    sys.dont_write_bytecode = True
    # What tests start as processes of their own must be the copy too.
    os.environ |= {"PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
    sys.path[:] = [str(copy), *(path for path in sys.path if path not in ("", str(ROOT), str(ROOT / "tests")))]
    for name in [name for name in sys.modules if name.split(".")[0] in ("harness", "mutants", "helpers", "conftest")]:
        del sys.modules[name]
    written = io.StringIO()
    with contextlib.redirect_stdout(written), contextlib.redirect_stderr(written):
        code = pytest.main(["-x", "-q", "--no-header", "-p", "no:cacheprovider", "-p", "no:xdist", *tests])
    answer.send((int(code), written.getvalue()))
    answer.close()
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main())
