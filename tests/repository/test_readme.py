"""What the README shows plans as it stands, its commands exist, and every committed folder of results has its row."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import typer

from harness import catalog
from harness.cli import app
from harness.sweeps import expand
from harness.sweeps import spec as sweeps

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
RESULTS = (ROOT / "results" / "README.md").read_text(encoding="utf-8")


def block(language: str, begins: str) -> str:
    (text,) = re.findall(rf"```{language}\n({re.escape(begins)}.*?)```", README, re.DOTALL)
    return str(text)


def test_own_data_method_and_model_plan_as_they_are_shown(tmp_path: Path) -> None:
    shutil.copyfile(ROOT / "harness" / "cli" / "example" / "tickets.csv", tmp_path / "tickets.csv")
    shown = {
        "tickets.yaml": block("yaml", "name: tickets"),
        "norms.py": block("python", "from harness"),
        "my.yaml": block("yaml", "name: my"),
    }
    for name, text in shown.items():
        assert text.count("\n") <= 10, f"{name} fits in ten lines"
        (tmp_path / name).write_text(text, encoding="utf-8")
    plan = expand.plan(sweeps.load(tmp_path / "my.yaml"))
    assert not plan.skipped
    methods = {row.trial.method for row in plan.runnable}
    assert methods == {"baseline", "head", "lora", "own:norms"}
    rates = {
        method: {row.trial.learning_rate for row in plan.runnable if row.trial.method == method} for method in methods
    }
    assert {method: len(some) for method, some in rates.items()} == {
        "baseline": 1,
        "head": 3,
        "lora": 3,
        "own:norms": 3,
    }


def test_every_command_and_option_exists() -> None:
    known = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    code = re.findall(r"`(tunebench [^`]+)`", README)
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
    code += [line for language, text in fenced if not language for line in text.splitlines()]
    calls = [words[1:] for words in map(shlex.split, code) if words[0] == "tunebench"]
    assert len(calls) > 12
    for name, *words in calls:
        options = {option for parameter in known[name].params for option in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= options, (name, words)


def test_the_objectives_and_the_number_of_tasks_are_those_of_the_package() -> None:
    (row,) = re.findall(r"^\| objectives \| (.+) \|$", README, re.MULTILINE)
    assert len(row.split(", ")) == len(catalog.OBJECTIVES)
    (number,) = re.findall(r"^\| tasks \| \[(\d+), with", README, re.MULTILINE)
    assert int(number) == len(list((ROOT / "harness" / "tasks").glob("*.yaml")))


def test_the_readme_is_short() -> None:
    assert len(README.encode()) < 9_000


def committed() -> list[str]:
    listed = ["git", "-C", str(ROOT), "ls-files", "results"]
    done = subprocess.run(listed, capture_output=True, text=True, check=False)
    if done.returncode or not done.stdout:
        pytest.skip("this is no checkout of Git")
    return done.stdout.split()


def test_every_committed_folder_of_results_has_its_row() -> None:
    folders = {Path(name).parts[1] for name in committed() if len(Path(name).parts) > 2}
    rows = [
        [cell.strip() for cell in line[1:-1].split("|")] for line in RESULTS.splitlines() if re.match(r"\| \[", line)
    ]
    named = {str(re.match(r"\[([\w-]+)\]", cells[0]).group(1)): cells for cells in rows}  # type: ignore[union-attr]
    assert set(named) == folders and "reference" in folders
    for folder, (_, command, machine, time, what) in named.items():
        assert command and what, folder
        assert folder == "reference" or (machine and time), f"{folder}: say on what, and for how long"


def test_no_committed_file_of_results_is_large() -> None:
    for name in committed():
        path = ROOT / name
        assert not path.exists() or path.stat().st_size < 2_000_000, name
