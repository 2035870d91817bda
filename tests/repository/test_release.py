"""One version everywhere; the image, the workflows and the citation keep to the package."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from harness import __version__
from harness.cli import app

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def pinned(package: str) -> str:
    (version,) = re.findall(rf"^{package}==(.+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    return str(version)


def test_the_version_stands_in_one_place_and_the_others_follow() -> None:
    assert PROJECT["project"]["dynamic"] == ["version"] and "version" not in PROJECT["project"]
    assert PROJECT["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "harness.__version__"}
    newest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert newest is not None and newest.group(1) == __version__
    assert citation()["version"] == __version__
    images = re.findall(r"tunebench:([\d.]+)", DOCKERFILE + (ROOT / "docs" / "cluster.md").read_text(encoding="utf-8"))
    assert len(images) >= 3 and set(images) == {__version__}


def citation() -> dict[str, Any]:
    return dict(yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8")))


def test_the_citation_has_what_its_schema_requires() -> None:
    """Of https://github.com/citation-file-format/citation-file-format, schema 1.2.0."""
    document = citation()
    assert document.keys() >= {"cff-version", "message", "title", "authors"}
    assert document["cff-version"] == "1.2.0" and document["type"] == "software"
    assert document["license"] == PROJECT["project"]["license"]
    assert document["authors"] and all("name" in one or "family-names" in one for one in document["authors"])
    assert all(isinstance(word, str) for word in document["keywords"])
    known = {"abstract", "keywords", "license", "version", "type", "date-released", "url", "repository-code", "doi"}
    assert document.keys() <= known | {"cff-version", "message", "title", "authors"}


def test_the_image_has_the_versions_of_the_package() -> None:
    assert f"ARG RAY={pinned('ray')}\n" in DOCKERFILE
    stages = re.findall(
        r"^FROM rayproject/ray:\$\{RAY\}-py(\d)(\d+)-(cpu|gpu) AS (cpu|cuda)$", DOCKERFILE, re.MULTILINE
    )
    assert [(device, name) for *_, device, name in stages] == [("cpu", "cpu"), ("gpu", "cuda")], (
        "the last is the default"
    )
    least = tuple(map(int, PROJECT["project"]["requires-python"].removeprefix(">=").split(".")))
    assert all((int(major), int(minor)) >= least for major, minor, *_ in stages)
    installs = re.findall(r"^RUN pip install (.+)$", DOCKERFILE, re.MULTILINE)
    assert len(installs) == 2
    for line in installs:
        words = shlex.split(line)
        assert (ROOT / words[words.index("-c") + 1]).is_file()
        (extra,) = re.fullmatch(r"\.\[(\w+)\]", words[words.index("-e") + 1]).groups()  # type: ignore[union-attr]
        assert extra in PROJECT["project"]["optional-dependencies"]


def test_the_manifest_names_the_image_that_the_page_builds() -> None:
    manifest = yaml.safe_load((ROOT / "docs" / "kuberay.yaml").read_text(encoding="utf-8"))
    (container,) = manifest["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"]
    assert container["image"] == f"tunebench:{__version__}"
    assert f"docker build --target cuda -t {container['image']} ." in (ROOT / "docs" / "cluster.md").read_text()
    ignored = (ROOT / ".dockerignore").read_text().split()
    assert ".venv" in ignored and not {"harness", "notebooks", "sweeps", "claims", "constraints.txt"} & set(ignored)


def steps() -> Iterator[tuple[Path, dict[str, Any]]]:
    for path in WORKFLOWS:
        for job in yaml.safe_load(path.read_text(encoding="utf-8"))["jobs"].values():
            assert job["runs-on"] and job["timeout-minutes"], path
            for step in job["steps"]:
                yield path, step


def test_every_workflow_is_one() -> None:
    assert {path.stem for path in WORKFLOWS} == {"tests", "site", "gate", "release"}
    for path in WORKFLOWS:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
        # YAML 1.1 reads the key 'on' as true.
        assert document.keys() == {"name", True, "permissions", "jobs"}, path
        assert document["permissions"] == {"contents": "read"}
    for path, step in steps():
        assert ("uses" in step) != ("run" in step), path
        assert re.fullmatch(r"actions/[a-z-]+@v\d+", step.get("uses", "actions/none@v0")), path


#: Programs that every machine of GitHub has.
SYSTEM = {"git", "grep", "cat", "python"}


def test_a_run_installs_what_it_needs_and_tests_install_their_tools_too(tmp_path: Path) -> None:
    shutil.copy(ROOT / "Makefile", tmp_path)
    for name in ("pyproject.toml", "constraints.txt"):
        (tmp_path / name).touch()

    def installed(target: str) -> list[str]:
        dry = subprocess.run(["make", "-n", target], cwd=tmp_path, capture_output=True, text=True, check=True)
        return re.findall(r"pip install .* -e '(.*)'$", dry.stdout, re.MULTILINE)

    assert installed("run") == ["."]
    assert installed("test") == installed("check") == installed("docs") == [".[test]"]
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / ".ready").touch()
    assert installed("run") == [] and installed("test") == [".[test]"]
    (tmp_path / ".venv" / ".tools").touch()
    assert installed("run") == installed("test") == []


def test_every_command_of_a_workflow_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE))
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    lines = [shlex.split(line) for _, step in steps() for line in step.get("run", "").splitlines()]
    assert len(lines) > 12
    for program, *words in lines:
        if program == "make":
            assert words and set(words) <= targets, words
        elif program.endswith("/tunebench"):
            assert words[0] in commands
        elif program.startswith(".venv/"):
            assert program == ".venv/bin/pip"
        else:
            assert program in SYSTEM or (ROOT / program).is_file(), program


def test_the_workflow_on_the_page_is_the_one_of_this_repository() -> None:
    page = (ROOT / "docs" / "ci.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    assert (ROOT / ".github" / "workflows" / "gate.yml").read_text(encoding="utf-8") == block


@pytest.mark.parametrize("extra", ["docs", "ray", "slurm"])
def test_the_tests_have_what_an_extra_brings_and_all_of_it_is_pinned(extra: str) -> None:
    extras = PROJECT["project"]["optional-dependencies"]
    assert set(extras[extra]) <= set(extras["test"])
    pins = re.sub(r"[-_.]+", "-", (ROOT / "constraints.txt").read_text().lower())
    for requirement in extras["test"]:
        name = re.split(r"[>=<]", requirement)[0].lower()
        assert re.search(rf"^{re.escape(name)}==", pins, re.MULTILINE), f"{name} is not pinned"
