"""The page on CI keeps to the code: its workflow parses, its commands exist, and its numbers are those of the gate."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import typer
import yaml

from harness.cli import app
from harness.judgement.tolerances import COSTS, NAMES, SCORE_SPREAD, SCORE_TOLERANCE

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "ci.md").read_text(encoding="utf-8")


def workflow() -> dict[str, object]:
    (text,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    return dict(yaml.safe_load(text))


def commands() -> list[list[str]]:
    """Every call of the command line on the page, word by word."""
    steps = workflow()["jobs"]["gate"]["steps"]  # type: ignore[index]
    (block,) = re.findall(r"```\n(tunebench.*?)```", PAGE, re.DOTALL)
    lines = [*block.splitlines(), *(line for step in steps for line in step.get("run", "").splitlines())]
    return [words[1:] for words in map(shlex.split, lines) if words and words[0].endswith("tunebench")]


def test_the_workflow_is_one() -> None:
    document = workflow()
    # YAML 1.1 reads the key 'on' as true.
    assert document[True] == "pull_request"  # type: ignore[index]
    (job,) = document["jobs"].values()  # type: ignore[attr-defined]
    assert job["runs-on"] and all(("uses" in step) != ("run" in step) for step in job["steps"])


def test_its_commands_and_options_exist() -> None:
    known = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    called = commands()
    assert {words[0] for words in called} == {"run", "compare"} and len(called) == 6
    for name, *words in called:
        options = {option for parameter in known[name].params for option in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= options


def test_its_numbers_are_those_of_the_gate() -> None:
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in PAGE.splitlines() if line.startswith("|")]
    by_name = {row[0]: row for row in rows if row[0] in NAMES}
    assert set(by_name) == set(NAMES)
    assert by_name["score"][2].startswith(f"{100 * SCORE_TOLERANCE:g} %")
    assert f"{100 * SCORE_SPREAD:g} % of the metric's range" in by_name["score"][3]
    for cost in COSTS:
        _, columns, tolerance, noise = by_name[cost.name]
        assert columns == " + ".join(f"`{column}`" for column in cost.columns)
        assert tolerance == f"{100 * cost.tolerance:g} %"
        said = f"{100 * cost.spread:g} %; on an accelerator {100 * cost.accelerator_spread:g} %"
        said += f"; and {100 * cost.drift:g} % that a whole run shares" if cost.drift else ""
        assert noise == (said if cost.spread else "none")
