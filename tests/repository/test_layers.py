"""Dependencies run one way: a room imports from rooms below it, and none looks back up."""

from __future__ import annotations

import ast
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[2] / "harness"

#: For each room, the rooms that it may import from beside itself and what stands on top of the package.
BELOW: dict[str, set[str]] = {
    "processes": set(),
    "sources": set(),
    "results": set(),
    "models": {"sources"},
    "measure": {"sources"},
    "networks": {"models"},
    "tasks": {"processes", "sources", "networks"},
    "methods": {"models", "networks", "tasks"},
    "serving": {"models", "networks", "methods", "measure"},
    "training": {"figures", "measure", "models", "networks", "tasks"},
    "objectives": {"training", "measure", "models", "networks", "tasks"},
    "experiment": {
        *("objectives", "training", "methods", "networks", "tasks", "models", "measure", "results", "processes"),
        "sources",
    },
    "sweeps": {"sources", "models", "tasks", "results"},
    "ledger": {"sweeps", "results"},
    "runner": {"ledger", "sweeps", "results", "processes"},
    "estimate": {"models", "methods", "networks", "training", "measure", "sources", "sweeps", "tasks", "processes"},
    "judgement": {"results", "tasks"},
    "figures": {"judgement", "results", "tasks"},
    "report": {"figures", "judgement", "results", "models", "tasks", "processes"},
    "cli": {"report", "figures", "judgement", "results", "runner", "ledger", "sweeps", "estimate", "sources", "models",
            "tasks", "processes"},
}  # fmt: skip

#: What stands on top of the package may import only from there.
TOP = {
    *("trial", "execution", "arguments", "catalog", "own_method", "notebooks", "specfile", "files", "plain", "errors"),
    *("imports", "__init__"),
}


def imports(path: Path) -> set[str]:
    """Names below ``harness`` that a file imports, wherever in it, but for types alone."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for_types = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    found = set()
    for node in ast.walk(tree):
        if id(node) in for_types:
            continue
        if isinstance(node, ast.ImportFrom) and node.module == "harness":
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("harness."):
            found.add(str(node.module).split(".")[1])
        elif isinstance(node, ast.Import):
            found |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("harness.")}
    return found - {"__version__"}


def test_every_room_has_its_place_and_nothing_else_stands_on_top() -> None:
    rooms = {path.name for path in PACKAGE.iterdir() if path.is_dir() and list(path.glob("*.py"))}
    assert rooms == BELOW.keys()
    assert {path.stem for path in PACKAGE.glob("*.py")} == TOP


def test_no_room_looks_back_up() -> None:
    broken = []
    for path in sorted(PACKAGE.rglob("*.py")):
        room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        allowed = TOP if room in TOP else {room, *TOP, *BELOW[room]}
        broken += [
            f"{path.relative_to(PACKAGE)} imports {name}"
            for name in sorted(imports(path) - allowed)
            # A forked trial becomes the command line: it is started, not used.
            if (path.name, name) != ("forkserver.py", "cli")
        ]
    assert broken == []


def test_the_order_has_no_circle() -> None:
    from graphlib import TopologicalSorter

    assert len(list(TopologicalSorter(BELOW).static_order())) == len(BELOW)


def test_no_file_is_longer_than_four_hundred_lines() -> None:
    long = {str(p.relative_to(PACKAGE)): n for p in PACKAGE.rglob("*.py") if (n := p.read_text().count("\n")) > 400}
    assert long == {}
