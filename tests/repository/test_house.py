"""The house keeps its own rules: formats, types, clean notebooks, one list of requirements, documents that agree."""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from harness import catalog, methods, notebooks
from harness.results import schema

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted(path for path in (ROOT / "notebooks").rglob("*.ipynb") if ".ipynb_checkpoints" not in path.parts)
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def tool(*command: str) -> None:
    done = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_ruff_finds_nothing() -> None:
    tool("ruff", "check", ".")


def test_code_is_formatted() -> None:
    tool("ruff", "format", "--check", ".")


#: Written above a notebook's code, so that what mypy says of it is what a kernel would.
AS_A_MODULE = "# mypy: allow-untyped-defs, allow-untyped-calls\nfrom IPython.display import display\n"
#: Names that are not there and arguments that nobody takes. Other types of a notebook's values follow from parameters.
FATAL = re.compile(r"\[(attr-defined|call-arg|import-not-found|import-untyped|name-defined|syntax)\]$", re.MULTILINE)


@pytest.mark.slow
def test_types_are_right() -> None:
    tool("mypy")


@pytest.mark.slow
def test_what_a_notebook_imports_and_calls_is_there(tmp_path: Path) -> None:
    for path in NOTEBOOKS:
        cells = [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]
        lines = [line for cell in cells for line in "".join(cell["source"]).split("\n")]
        code = "\n".join(line for line in lines if not line.startswith("%"))
        (tmp_path / f"{path.parent.name}_{path.stem}.py").write_text(AS_A_MODULE + code + "\n")
    command = [sys.executable, "-m", "mypy", *map(str, sorted(tmp_path.iterdir()))]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert f"(checked {len(NOTEBOOKS)} source files)" in done.stdout or done.returncode == 0, done.stdout + done.stderr
    assert [line for line in done.stdout.splitlines() if FATAL.search(line)] == []


def name_of(requirement: str) -> str:
    return re.split(r"[<>=!~;\[ ]", requirement, maxsplit=1)[0].lower().replace("_", "-")


def test_every_requirement_is_pinned_in_the_constraints_within_its_range() -> None:
    from packaging.requirements import Requirement

    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and not line.startswith("#")]
    pinned = {name_of(line): line.split("==")[1] for line in lines}
    for text in [*PROJECT["dependencies"], *(r for extra in PROJECT["optional-dependencies"].values() for r in extra)]:
        requirement = Requirement(text)
        assert name_of(text) in pinned, f"{text} is not in constraints.txt"
        assert requirement.specifier.contains(pinned[name_of(text)]), text


def test_the_conda_environment_installs_the_project_itself() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    python = next(d for d in environment["dependencies"] if isinstance(d, str) and d.startswith("python="))
    from packaging.specifiers import SpecifierSet

    assert python.removeprefix("python=") in SpecifierSet(PROJECT["requires-python"])
    pip = next(d["pip"] for d in environment["dependencies"] if isinstance(d, dict))
    # One list of requirements: conda brings Python, pyproject.toml says the rest, constraints.txt which versions.
    assert pip == ["-c constraints.txt", "-e .[test]"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: str(path.relative_to(ROOT / "notebooks")))
def test_notebooks_are_committed_clean(path: Path) -> None:
    notebook = json.loads(path.read_text())
    assert set(notebook["metadata"]) <= {"kernelspec", "language_info"}
    assert notebook["metadata"]["kernelspec"]["name"] == "python3"
    ids = [cell["id"] for cell in notebook["cells"]]
    assert ids == [f"{path.stem.replace('_', '-')}-{number:02d}" for number in range(len(ids))]
    for cell in notebook["cells"]:
        assert set(cell["metadata"]) <= {"tags"}
        if cell["cell_type"] == "code":
            assert cell["outputs"] == [] and cell["execution_count"] is None
    tagged = [cell for cell in notebook["cells"] if "parameters" in cell["metadata"].get("tags", [])]
    assert len(tagged) == 1, "exactly one cell tagged 'parameters'"
    assert notebook["cells"][0]["cell_type"] == "markdown"
    assert "".join(notebook["cells"][0]["source"]).startswith("# ")


def test_every_method_and_objective_has_its_notebook() -> None:
    there = {str(path.relative_to(ROOT / "notebooks").with_suffix("")) for path in NOTEBOOKS}
    wanted = {entry.notebook for entry in catalog.METHODS.values()}
    wanted |= {entry.notebook for entry in catalog.OBJECTIVES.values() if entry.notebook}
    assert wanted <= there, sorted(wanted - there)


@pytest.mark.parametrize("name", [name for name, method in catalog.METHODS.items() if method.trains])
def test_a_method_takes_what_its_notebook_lets_a_sweep_set(name: str) -> None:
    """The notebooks of objectives hand these arguments to any method."""
    declared = notebooks.parameters(catalog.METHODS[name].notebook)
    known = {*notebooks.COMMON, *notebooks.RUNNER, *methods.arguments(name)}
    assert not declared.keys() - known


@pytest.mark.parametrize("name", catalog.METHODS)
def test_the_defaults_of_a_method_are_those_of_its_notebook(name: str) -> None:
    declared = notebooks.parameters(catalog.METHODS[name].notebook)
    defaults = {
        argument: parameter.default
        for argument, parameter in methods.arguments(name).items()
        if argument in declared and argument not in ("parent", *notebooks.COMMON)
    }
    assert {argument: declared[argument] for argument in defaults} == defaults


def test_every_objective_has_its_file() -> None:
    for name in catalog.OBJECTIVES:
        module = importlib.import_module(f"harness.objectives.{name}")
        assert callable(module.fit) and module.__doc__, name


def test_the_data_dictionary_is_that_of_the_schema() -> None:
    assert (ROOT / "docs" / "data_dictionary.md").read_text() == schema.dictionary(), (
        "run: python -m harness.results.schema"
    )


@pytest.mark.parametrize("document", ["README.md", *(str(p.relative_to(ROOT)) for p in (ROOT / "docs").glob("*.md"))])
def test_links_between_documents_lead_somewhere(document: str) -> None:
    path = ROOT / document
    for target in re.findall(r"\]\(([^)#]+)\)", path.read_text()):
        if "://" not in target:
            assert (path.parent / target).exists(), f"{document} points to {target}"


@pytest.mark.slow
def test_planning_needs_no_torch() -> None:
    code = (
        "import sys, harness.cli, harness.sweeps.spec, harness.sweeps.expand, harness.catalog, harness.trial,"
        "harness.runner.run, harness.estimate.planned, harness.report.sections, harness.figures,"
        "harness.results.tables, harness.judgement.statistics, harness.ledger.ledger;"
        "sys.exit(', '.join(m for m in ('torch', 'transformers', 'peft', 'datasets') if m in sys.modules) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"imported: {done.stderr}"
