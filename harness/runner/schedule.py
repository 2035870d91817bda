"""In which order trials may start: those of the plan, each when its parents have ended. Looks at no disk."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Iterable

from harness.sweeps.plan import Planned


class Schedule:
    """Tells the next trial in time that does not grow with the number of those that wait."""

    def __init__(self, rows: Iterable[Planned]) -> None:
        self._rows = dict(enumerate(rows))
        self._places = {row.trial_id: place for place, row in self._rows.items()}
        self._children: defaultdict[str, list[Planned]] = defaultdict(list)
        self._missing: dict[str, set[str]] = {}
        for row in self._rows.values():
            missing = {parent for parent in row.trial.parent_ids if parent in self._places}
            self._missing[row.trial_id] = missing
            for parent in missing:
                self._children[parent].append(row)
        self._ready = [place for place, row in self._rows.items() if not self._missing[row.trial_id]]

    def take(self) -> Planned | None:
        """Take the first row of the plan that may start; None when none may now."""
        return self._rows[heapq.heappop(self._ready)] if self._ready else None

    def give_back(self, row: Planned) -> None:
        """Have a row that was taken start in its turn, and one from elsewhere first: others wait for it."""
        place = self._places.setdefault(row.trial_id, -1 - len(self._places))
        self._rows[place] = row
        heapq.heappush(self._ready, place)

    def ended(self, trial_id: str) -> list[Planned]:
        """The children of a trial that has ended; those without another parent to wait for may start now."""
        children = self._children.pop(trial_id, [])
        for child in children:
            missing = self._missing[child.trial_id]
            missing.discard(trial_id)
            if not missing:
                self.give_back(child)
        return children
