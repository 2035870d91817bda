"""The package as a user installs it: what the wheel carries, and ``tunebench init`` and a run far from a checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from packaging.metadata import Metadata

from harness import __version__, cli, notebooks
from harness.sweeps import expand
from harness.sweeps import spec as sweeps

ROOT = Path(__file__).resolve().parents[2]
Tunebench = Callable[..., subprocess.CompletedProcess[str]]


def files(folder: Path, pattern: str) -> set[str]:
    found = {path.relative_to(folder) for path in folder.rglob(pattern)}
    return {path.as_posix() for path in found if ".ipynb_checkpoints" not in path.parts}


def enter(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand in ``folder`` with nothing said of where the notebooks are; what is set on the way is forgotten after."""
    monkeypatch.chdir(folder)
    for name in ("TUNEBENCH_NOTEBOOKS", "TUNEBENCH_SWEEPS"):
        monkeypatch.setenv(name, "")


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int | str | None:
    monkeypatch.setattr(sys, "argv", ["tunebench", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return ended.value.code


def test_every_folder_with_code_is_in_the_list_of_packages() -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]["packages"]
    found = {path.parent.relative_to(ROOT).as_posix().replace("/", ".") for path in (ROOT / "harness").rglob("*.py")}
    assert set(listed) == found | {f"harness.assets.{name}" for name in ("claims", "notebooks", "reference", "sweeps")}


def test_init_makes_all_that_a_sweep_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    enter(tmp_path, monkeypatch)
    assert call(monkeypatch, "init", "work") == 0
    assert {path.name for path in tmp_path.iterdir()} == {"work"}
    assert {path.name for path in (tmp_path / "work").iterdir()} == {"notebooks", "sweeps", "example"}
    for folder, pattern in (("notebooks", "*.ipynb"), ("sweeps", "*.yaml")):
        assert files(tmp_path / "work" / folder, "*.*") == files(ROOT / folder, pattern)
    assert files(tmp_path / "work" / "example", "*") == {"tickets.yaml", "tickets.csv", "sweep.yaml", "norms.py"}


def test_init_fills_the_empty_folder_in_which_one_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    enter(tmp_path, monkeypatch)
    assert call(monkeypatch, "init", ".") == 0
    assert {path.name for path in tmp_path.iterdir()} == {"notebooks", "sweeps", "example"}


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("full", "error: full: is not empty; give a new or an empty folder\n"),
        ("full/file", "error: full/file: is a file; give a new or an empty folder\n"),
        ("none/work", "error: none/work: none is not a folder; create it first\n"),
    ],
)
def test_init_refuses_what_is_taken(
    target: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    enter(tmp_path, monkeypatch)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("mine")
    assert call(monkeypatch, "init", target) == 2
    assert capsys.readouterr() == ("", message)
    assert files(tmp_path, "*") == {"full", "full/file"}
    assert (tmp_path / "full" / "file").read_text() == "mine"


@pytest.mark.parametrize("target", ["work", "."])
def test_init_leaves_nothing_half_written(target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    enter(tmp_path, monkeypatch)
    copied, rename = shutil.copyfile, Path.rename

    def full_disk(source: Path, destination: Path) -> None:
        if source.name == "tickets.csv":
            raise OSError(28, "No space left on device", str(destination))
        copied(source, destination)

    monkeypatch.setattr("harness.cli.init.shutil.copyfile", full_disk)
    assert call(monkeypatch, "init", target) == 2
    assert list(tmp_path.iterdir()) == []

    def breaks(path: Path, destination: Path) -> Path:
        if path.name in ("example", ".work.init.part"):
            raise OSError(5, "Input/output error", str(path))
        return rename(path, destination)

    monkeypatch.setattr("harness.cli.init.shutil.copyfile", copied)
    monkeypatch.setattr(Path, "rename", breaks)
    assert call(monkeypatch, "init", target) == 2
    assert list(tmp_path.iterdir()) == []


def test_the_current_folder_comes_before_the_package_and_a_variable_before_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    enter(tmp_path, monkeypatch)
    assert (notebooks.root(), sweeps.root()) == (ROOT / "notebooks", ROOT / "sweeps")
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "sweeps").mkdir()
    assert (notebooks.root(), sweeps.root()) == (ROOT / "notebooks", ROOT / "sweeps"), "anybody's folder 'notebooks'"
    (tmp_path / "notebooks" / "methods").mkdir()
    assert (notebooks.root(), sweeps.root()) == (tmp_path / "notebooks", tmp_path / "sweeps")
    (tmp_path / "sweeps").rmdir()
    assert sweeps.root() == ROOT / "sweeps"
    monkeypatch.setenv("TUNEBENCH_NOTEBOOKS", "/elsewhere/notebooks")
    monkeypatch.setenv("TUNEBENCH_SWEEPS", "/elsewhere/sweeps")
    assert (notebooks.root(), sweeps.root()) == (Path("/elsewhere/notebooks"), Path("/elsewhere/sweeps"))


def test_processes_in_other_folders_find_the_same_notebooks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    enter(tmp_path, monkeypatch)
    notebooks.hand_on()
    assert os.environ["TUNEBENCH_NOTEBOOKS"] == "", "what comes along may lie elsewhere on another host"
    (tmp_path / "notebooks" / "methods").mkdir(parents=True)
    (tmp_path / "trial").mkdir()
    assert call(monkeypatch, "list", "methods") == 0
    monkeypatch.chdir(tmp_path / "trial")
    assert notebooks.root() == tmp_path / "notebooks"


def test_the_example_plans(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    enter(tmp_path, monkeypatch)
    assert call(monkeypatch, "init", "work") == 0
    enter(tmp_path / "work", monkeypatch)
    rows = expand.plan(sweeps.load("example/sweep.yaml")).rows
    assert [(row.trial.method, row.trial.task, row.reason) for row in rows] == [
        ("baseline", "tickets", None),
        ("head", "tickets", None),
        ("lora", "tickets", None),
        ("own:norms", "tickets", None),
    ]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what is built: setuptools leaves folders behind."""
    place = tmp_path_factory.mktemp("source")
    for name in ("harness", "claims", "notebooks", "sweeps", "results/reference"):
        shutil.copytree(ROOT / name, place / name, ignore=shutil.ignore_patterns("__pycache__"))
    for path in ROOT.iterdir():
        if path.is_file() and not path.name.startswith("."):
            shutil.copyfile(path, place / path.name)
    return place


@pytest.fixture(scope="module")
def wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel."""
    return build_wheel(source, tmp_path_factory.mktemp("wheel"))


def build_wheel(source: Path, place: Path) -> Path:
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*command, "-w", str(place), str(source)], check=True)
    (built,) = place.glob("tunebench-*.whl")
    return built


@pytest.fixture(scope="module")
def tunebench(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Tunebench:
    """The command of a fresh environment that has the wheel, and what the present one has but for this checkout."""
    place = tmp_path_factory.mktemp("installed")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(place / "venv")], check=True)
    python = place / "venv" / "bin" / "python"
    (packages,) = (place / "venv").glob("lib/python*/site-packages")
    # A path in a .pth file brings packages, and not the .pth files beside them, one of which is this checkout's.
    (packages / "present.pth").write_text(sysconfig.get_path("purelib") + "\n")
    install = [sys.executable, "-m", "pip", "--python", str(python), "install", "-q", "--no-deps", "--no-index"]
    subprocess.run([*install, str(wheel)], check=True)
    clean = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    clean = {n: v for n, v in clean.items() if not n.startswith("TUNEBENCH_") or n == "TUNEBENCH_CACHE"}

    def run(*words: str, where: Path) -> subprocess.CompletedProcess[str]:
        command = [str(place / "venv" / "bin" / "tunebench"), *words]
        if words[0] == "-c":
            command = [str(python), *words]
        done = subprocess.run(command, cwd=where, env=clean, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done

    return run


@pytest.mark.slow
def test_the_wheel_carries_everything_that_the_program_reads(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    endings = ("*.py", "*.yaml", "*.j2", "*.css", "*.js", "*.csv", "*.json", "*.txt")
    wanted = {f"harness/{name}" for ending in endings for name in files(ROOT / "harness", ending)}
    wanted |= {f"harness/assets/notebooks/{name}" for name in files(ROOT / "notebooks", "*.ipynb")}
    wanted |= {f"harness/assets/{at}/{name}" for at in ("claims", "sweeps") for name in files(ROOT / at, "*.yaml")}
    wanted |= {f"harness/assets/reference/{name}" for name in files(ROOT / "results" / "reference", "*.csv")}
    assert {name for name in names if ".dist-info/" not in name} == wanted | {"harness/py.typed"}


@pytest.mark.slow
def test_the_wheel_says_what_it_is(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        said = Metadata.from_email(archive.read(name), validate=True)
        (entry,) = (name for name in archive.namelist() if name.endswith("/entry_points.txt"))
        assert "tunebench = harness.cli:main" in archive.read(entry).decode()
    assert (said.name, str(said.version), said.license_expression) == ("tunebench", __version__, "Apache-2.0")
    assert said.description == (ROOT / "README.md").read_text(encoding="utf-8")
    assert said.description_content_type == "text/markdown" and str(said.requires_python) == ">=3.11"
    assert {"docs", "mlflow", "ray", "slurm", "test"} == set(said.provides_extra or [])


@pytest.mark.long
def test_the_source_distribution_builds_the_same_wheel(source: Path, wheel: Path, tmp_path: Path) -> None:
    build = f"from setuptools import build_meta; build_meta.build_sdist({str(tmp_path)!r})"
    subprocess.run([sys.executable, "-c", build], cwd=source, check=True, stdout=subprocess.DEVNULL)
    with tarfile.open(tmp_path / f"tunebench-{__version__}.tar.gz") as archive:
        archive.extractall(tmp_path / "unpacked", filter="data")
    unpacked = tmp_path / "unpacked" / f"tunebench-{__version__}"
    assert {"CITATION.cff", "Makefile", "constraints.txt", "LICENSE", "README.md"} <= files(unpacked, "*")
    again = build_wheel(unpacked, tmp_path / "wheel")
    contents = [{one.filename: one.CRC for one in zipfile.ZipFile(path).infolist()} for path in (wheel, again)]
    assert contents[0] == contents[1]


@pytest.mark.slow
def test_a_run_far_from_the_checkout(tunebench: Tunebench, tmp_path: Path) -> None:
    package = tunebench("-c", "import harness; print(harness.__file__)", where=tmp_path).stdout.strip()
    assert "/venv/lib/" in package
    assert "quick" in tunebench("list", "sweeps", where=tmp_path).stdout, "from the wheel itself"
    assert "lora_as_good_as_full" in tunebench("list", "claims", where=tmp_path).stdout
    tunebench("init", "work", where=tmp_path)
    work = tmp_path / "work"
    # Whoever changes a notebook of the folder runs the changed one.
    changed = work / "notebooks" / "methods" / "baseline.ipynb"
    changed.write_text(changed.read_text(encoding="utf-8").replace('"cells": [', '"cells": [' + MARK + ",", 1))
    assert "baseline" in tunebench("plan", "quick", where=work).stdout
    only = ("--only", "method=baseline,model=minilm-l6-22m")
    small = ("--set", "budget.eval_examples=4", "--set", "budget.train_examples=8")
    tunebench("run", "quick", *only, *small, where=work)
    trials = pd.read_parquet(work / "results" / "quick" / "tables" / "trials.parquet")
    assert list(trials[["method", "model", "status"]].itertuples(index=False, name=None)) == [
        ("baseline", "minilm-l6-22m", "ok")
    ]
    assert trials[["git_commit", "git_dirty"]].isna().all(axis=None)
    (executed,) = (work / "results" / "quick" / "trials").glob("*/notebook.ipynb")
    assert package in executed.read_text(encoding="utf-8"), "what the added cell printed"


#: A cell that says which package the kernel has.
MARK = (
    '{"cell_type": "code", "id": "which-package", "execution_count": null, "metadata": {}, "outputs": [], '
    '"source": "import harness; print(harness.__file__)"}'
)
