"""What a plan says of its settings: which grids were taken by default, and where methods get unequal numbers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from harness.sweeps.plan import Later, Plan, Planned, facts
from harness.sweeps.spec import Sweep


def gives_rates(sweep: Sweep, method: str, **names: str) -> bool:
    """Whether the sweep gives a learning rate for the method in the cell with these names (model, task, objective)."""
    places = [sweep.defaults, sweep.methods.get(method, {}), (sweep.objectives or {}).get(names["objective"], {})]
    places += [entry.methods.get(method, {}) for entry in sweep.overrides if entry.matches(**names)]
    return any("learning_rate" in place for place in places)


@dataclass(frozen=True)
class _Cell:
    """One cell of a plan, and its settings."""

    method: str
    objective: str
    model: str
    task: str
    rates: tuple[float, ...]

    @property
    def place(self) -> str:
        return f"{self.objective}, {self.model}, {self.task}"


def default_grids(sweep: Sweep, rows: Iterable[Planned], later: Iterable[Later]) -> tuple[Mapping[str, Any], ...]:
    """The learning rates that cells of the plan took because the sweep gives none, each with the cell's names."""
    grids: dict[str, dict[str, Any]] = {}
    for cell in _cells(rows, later):
        names = {"objective": cell.objective, "model": cell.model, "task": cell.task}
        if not gives_rates(sweep, cell.method, **names):
            grid = {"method": cell.method, **names, "learning_rates": list(cell.rates)}
            grids.setdefault(repr(grid), grid)
    return tuple(grids.values())


def remarks(plan: Plan) -> Iterator[str]:
    """What a reader of ``plan`` should know of its settings, a line each; nothing where there is nothing to say."""
    by_rates: dict[tuple[str, tuple[float, ...]], list[str]] = {}
    for grid in plan.grids:
        of_grid = by_rates.setdefault((str(grid["method"]), tuple(grid["learning_rates"])), [])  # type: ignore[arg-type]
        of_grid.append(f"{grid['objective']}, {grid['model']}, {grid['task']}")
    everywhere = {method: sum(name == method for name, _ in by_rates) == 1 for method, _ in by_rates}
    for (method, rates), places in by_rates.items():
        where = "" if everywhere[method] else f" ({'; '.join(dict.fromkeys(places))})"
        yield f"learning rates of {method} by default: {', '.join(f'{rate:g}' for rate in rates)}{where}"
    for place, counts in _unequal(_cells(plan.runnable, plan.later)):
        told = ", ".join(f"{method} {' or '.join(map(str, sorted(some)))}" for method, some in counts.items())
        yield f"not every method gets as many settings (protocol, rule 1): {told} ({place})"
    for entry in plan.unmatched:
        yield f"{entry} {'changes' if entry.startswith('overrides') else 'matches'} nothing"
    yield from plan.overruled
    if plan.later:
        trials = sum(one.trials for one in plan.later)
        yield f"{trials} more are planned when the settings before them have been tried"


def _unequal(cells: Iterable[_Cell]) -> Iterator[tuple[str, dict[str, set[int]]]]:
    """Place -> how many settings each method has there, where they are not the same."""
    counts: dict[str, dict[str, set[int]]] = {}
    for cell in cells:
        counts.setdefault(cell.place, {}).setdefault(cell.method, set()).add(len(cell.rates))
    for place, by_method in counts.items():
        if len(set.union(*by_method.values())) > 1:
            yield place, by_method


def _cells(rows: Iterable[Planned], later: Iterable[Later]) -> list[_Cell]:
    """The cells in which something trains, each with all of its learning rates."""
    rates: dict[tuple[str, ...], dict[float, None]] = {}
    cells: dict[tuple[str, ...], tuple[str, str, str, str]] = {}
    named = [facts(row.trial) for row in rows if row.reason is None]
    # What waits for the choice among its settings has no rate yet; the settings are rows.
    for one in (*named, *(entry.facts for entry in later if "learning_rate" in entry.facts)):
        if one["learning_rate"] is not None:
            varied = repr({name: value for name, value in one.items() if name not in ("seed", "learning_rate")})
            several = one["learning_rate"] if isinstance(one["learning_rate"], list) else [one["learning_rate"]]
            names = (one["method"], one["objective"], one["model"], one["task"])
            cells[*names, varied] = names
            rates.setdefault((*names, varied), {}).update(dict.fromkeys(several))
    return [_Cell(*cells[key], tuple(sorted(of_cell))) for key, of_cell in rates.items()]
