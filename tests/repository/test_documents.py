"""The pages for contributors keep to the code: what they name exists, and what cites a rule finds it."""

from __future__ import annotations

import ast
import importlib
import json
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import yaml

ROOT = next(folder for folder in Path(__file__).resolve().parents if (folder / "pyproject.toml").is_file())
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
PROTOCOL = (ROOT / "docs" / "protocol.md").read_text(encoding="utf-8")
CHANGELOG = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
HOOKS = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"][0]["hooks"]

#: What a person reads, or cites rules in.
CITING = sorted(
    path
    for pattern in ("*.md", "docs/**/*.md", "harness/**/*.py", "harness/**/*.j2", "notebooks/**/*.ipynb")
    for path in ROOT.glob(pattern)
    if ".ipynb_checkpoints" not in path.parts
)


def blocks(page: str, language: str = "") -> list[str]:
    """The fenced blocks of a page in one language, without their indentation."""
    found = re.findall(rf"^ *```{language}\n(.*?)^ *```$", page, re.MULTILINE | re.DOTALL)
    return [textwrap.dedent(block) for block in found]


def named(page: str) -> list[str]:
    """Paths in backticks, such as `harness/trial.py` or `tests/a.py::test_b`; patterns with <name> are none."""
    text = re.sub(r"^ *```.*?^ *```$", "", page, flags=re.MULTILINE | re.DOTALL)
    words = re.findall(r"`([^`\s]+)`", text)
    return [word for word in words if re.match(r"[\w.-]+/|[\w.-]+\.(md|py|toml|txt|yaml)\b", word) and "<" not in word]


def tree(page: str) -> list[str]:
    """Paths of the annotated tree: its indentation says in which folder a name is."""
    folders: list[str] = []
    found = []
    for line in blocks(page)[0].splitlines():
        name, depth = line.split()[0], (len(line) - len(line.lstrip())) // 2
        folders = folders[:depth]
        found.append("".join(folders) + name)
        folders.append(name)
    return found


@pytest.mark.parametrize(
    "page", [CONTRIBUTING, ARCHITECTURE, PROTOCOL], ids=["contributing", "architecture", "protocol"]
)
def test_every_path_that_a_page_names_exists(page: str) -> None:
    made = {"reports/quick/index.html"}
    paths = [name for name in named(page) if name not in made]
    assert paths, "a page without a path would prove nothing"
    missing = []
    for name in paths:
        path, _, test = name.partition("::")
        there = (ROOT / path).exists()
        if not there or (test and f"def {test}(" not in (ROOT / path).read_text(encoding="utf-8")):
            missing.append(name)
    assert not missing


@pytest.mark.parametrize("name", ["CONTRIBUTING.md", "CHANGELOG.md"])
def test_links_lead_to_a_page_or_a_heading(name: str) -> None:
    page = (ROOT / name).read_text(encoding="utf-8")
    headings = {heading.lower().replace(" ", "-") for heading in re.findall(r"^#+ (.+)$", page, re.MULTILINE)}
    targets = re.findall(r"\]\(([^)]+)\)", page)
    assert targets
    for target in targets:
        assert target.removeprefix("#") in headings if target.startswith("#") else (ROOT / target).exists(), target


def test_the_tree_leaves_out_no_room_and_names_none_that_is_not_there() -> None:
    shown = tree(ARCHITECTURE)
    for path in shown:
        assert (ROOT / path).exists(), f"docs/architecture.md: {path} does not exist"
    there = {
        f"harness/{path.name}{'/' if path.is_dir() else ''}"
        for path in (ROOT / "harness").iterdir()
        if not path.name.startswith(("_", ".")) and (any(path.glob("*.py")) or path.suffix == ".py")
    }
    assert there == {path for path in shown if re.fullmatch(r"harness/[^/]+/?", path)}


def test_rules_are_numbered_from_one_without_a_gap() -> None:
    numbers = [int(number) for number in re.findall(r"^(\d+)\. \*\*", PROTOCOL, re.MULTILINE)]
    assert numbers == list(range(1, len(numbers) + 1)) and len(numbers) == 13


def test_every_rule_that_is_cited_exists() -> None:
    rules = {int(number) for number in re.findall(r"^(\d+)\. \*\*", PROTOCOL, re.MULTILINE)}
    cited = [
        (path.relative_to(ROOT), int(number))
        for path in CITING
        for number in re.findall(r"protocol(?:\.md\))?,? rule (\d+)", path.read_text(encoding="utf-8"), re.IGNORECASE)
    ]
    assert len(cited) >= 3, "nothing cites a rule: the search is broken"
    for path, number in cited:
        assert number in rules, f"{path} cites rule {number} of docs/protocol.md, which has {max(rules)}"


def test_targets_of_make_that_a_page_names_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    phony = re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    assert phony is not None and set(phony.group(1).split()) == targets, "every target does something"
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]
    code = "\n".join(
        part
        for page in pages
        for part in re.findall(r"`make [a-z-]+`|^make [a-z-]+", page.read_text(encoding="utf-8"), re.MULTILINE)
    )
    named_targets = set(re.findall(r"make ([a-z-]+)", code))
    assert {"run", "test", "fast", "check"} <= named_targets <= targets


def test_the_newest_entry_says_whether_rows_stay_comparable() -> None:
    entries = re.split(r"^## ", CHANGELOG, flags=re.MULTILINE)[1:]
    assert re.match(r"\d+\.\d+\.\d+", entries[0])
    assert "comparable" in entries[0]
    # And so does every line of it.
    items = re.split(r"^- ", entries[0], flags=re.MULTILINE)[1:]
    assert items
    for item in items:
        assert "omparable" in item.split("\n\n")[0], f"says nothing of rows: {item.splitlines()[0]}"


def test_the_examples_of_a_method_and_a_metric_import_what_exists() -> None:
    examples = blocks(CONTRIBUTING, "python")
    assert len(examples) == 2
    for statement in (one for example in examples for one in ast.walk(ast.parse(example))):
        if isinstance(statement, ast.ImportFrom) and statement.module != "__future__":
            module = importlib.import_module(str(statement.module))
            for alias in statement.names:
                assert hasattr(module, alias.name), f"{statement.module} has no {alias.name}"


@pytest.mark.slow
def test_what_cleans_a_notebook_cleans_it(tmp_path: Path) -> None:
    script = CONTRIBUTING.split("<<'END'\n")[1].split("END\n")[0]
    dirty = tmp_path / "full_top_k.ipynb"
    book = json.loads((ROOT / "notebooks" / "methods" / "full_top_k.ipynb").read_text(encoding="utf-8"))
    wanted = [(cell["id"], dict(cell["metadata"]), "".join(cell["source"])) for cell in book["cells"]]
    for cell in book["cells"]:
        cell["id"] = f"x{cell['id']}"
        cell["metadata"] |= {"papermill": {"status": "completed"}}
        if cell["cell_type"] == "code":
            cell |= {"execution_count": 3, "outputs": [{"output_type": "stream", "name": "stdout", "text": ["said"]}]}
    dirty.write_text(json.dumps(book), encoding="utf-8")
    subprocess.run([sys.executable, "-", str(dirty)], input=script, text=True, check=True)
    clean = json.loads(dirty.read_text(encoding="utf-8"))
    assert [(cell["id"], cell["metadata"], "".join(cell["source"])) for cell in clean["cells"]] == wanted
    code = [cell for cell in clean["cells"] if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)
    assert clean["metadata"]["kernelspec"]["name"] == "python3"


def test_hooks_run_from_the_virtual_environment_without_a_network() -> None:
    assert {hook["id"] for hook in HOOKS} == {"ruff", "ruff-format", "mypy", "notebooks"}
    for hook in HOOKS:
        assert hook["language"] == "system" and hook["entry"].startswith(".venv/bin/")
        for word in hook["entry"].split():
            assert not word.startswith("tests/") or (ROOT / word).is_file(), f"{word} does not exist"
