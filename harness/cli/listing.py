"""What ``tunebench list`` shows: names, and what helps to choose among them."""

from __future__ import annotations

from collections.abc import Callable

from harness import catalog, specfile
from harness.sweeps import spec as sweep

Row = dict[str, object]


def methods() -> list[Row]:
    """Name, description and source of every method."""
    return [
        {
            "name": m.name,
            "description": m.description,
            "models": ", ".join(m.families or m.model_kinds),
            "source": m.citation,
        }
        for m in catalog.METHODS.values()
    ]


def objectives() -> list[Row]:
    """Name, description, tasks and source of every objective."""
    return [
        {"name": o.name, "description": o.description, "tasks": ", ".join(o.task_kinds), "source": o.citation}
        for o in catalog.OBJECTIVES.values()
    ]


def models() -> list[Row]:
    """Name, kind, family and description of every model."""
    from harness.models.spec import load_spec, names

    return [
        {"name": s.name, "kind": s.kind, "family": s.family, "description": s.description}
        for s in map(load_spec, names())
    ]


def tasks() -> list[Row]:
    """Name, kind and description of every task."""
    from harness.tasks.spec import load_spec, names

    return [{"name": s.name, "kind": s.kind, "description": s.description} for s in map(load_spec, names())]


def sweeps() -> list[Row]:
    """Name and description of every built-in sweep."""
    documents = [(name, specfile.read_yaml(sweep.find(name))) for name in sweep.names()]
    return [{"name": name, "description": document.get("description", "")} for name, document in documents]


def claims() -> list[Row]:
    """Name, statement (as description) and source of every claim that a report checks."""
    from harness.judgement.claims import load_all

    return [
        {"name": c.name, "description": c.statement, "source": f"{c.source.citation}, {c.source.where}"}
        for c in load_all()
    ]


def figures() -> list[Row]:
    """Name and description of every figure."""
    from harness.figures import DESCRIPTIONS

    return [{"name": name, "description": description} for name, description in DESCRIPTIONS.items()]


LISTINGS: dict[str, Callable[[], list[Row]]] = {
    "methods": methods,
    "objectives": objectives,
    "models": models,
    "tasks": tasks,
    "sweeps": sweeps,
    "claims": claims,
    "figures": figures,
}
