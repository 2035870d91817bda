"""Lists as one text: triples, facts and turns that a row holds as lists, or as lists of lists or objects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import Field

from harness.tasks.read import as_text, is_missing
from harness.trial import Frozen


class Join(Frozen):
    """How a list becomes a text."""

    between: str = Field(", ", description="the sign between the items")
    inside: str = Field(" ", description="the sign between the parts of an item that is itself a list or an object")
    parts: tuple[str, ...] = Field((), description="the parts of an object, in this order; empty: all, as they stand")

    def text(self, value: Any) -> str:
        """``value`` as text; what is no list is one item."""
        return self.between.join(text for item in _items(value) if (text := self._item(item)))

    def _item(self, item: Any) -> str:
        if isinstance(item, Mapping):
            item = [item.get(name) for name in self.parts] if self.parts else list(item.values())
        several = item if isinstance(item, (list, tuple)) else [item]
        return self.inside.join(as_text(one).strip() for one in several if not is_missing(one))


def names(value: Any) -> set[str]:
    """The names that the objects in ``value`` have for their parts."""
    return {str(name) for item in _items(value) if isinstance(item, Mapping) for name in item}


def _items(value: Any) -> Sequence[Any]:
    return value if isinstance(value, (list, tuple)) else [value]
