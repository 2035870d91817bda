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


def groups() -> list[Row]:
    """Name, tasks and description of every group of tasks."""
    from harness.tasks.groups import load_group, names

    return [
        {"name": group.name, "tasks": ", ".join(group.tasks), "description": group.description}
        for group in map(load_group, names())
    ]


def sweeps() -> list[Row]:
    """Name and description of every built-in sweep."""
    documents = [(name, specfile.read_yaml(sweep.find(name))) for name in sweep.names()]
    return [{"name": name, "description": document.get("description", "")} for name, document in documents]


LISTINGS: dict[str, Callable[[], list[Row]]] = {
    "methods": methods,
    "objectives": objectives,
    "models": models,
    "tasks": tasks,
    "groups": groups,
    "sweeps": sweeps,
}
