"""An order of which every beginning holds each label in proportion: what splits and budgets of classification cut."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Hashable, Sequence
from typing import TypeVar

T = TypeVar("T")


def stratified(items: Sequence[T], label: Callable[[T], Hashable]) -> list[T]:
    """``items`` in an order of which the first n hold less than one more or less than n · share of every label.

    The items of one label keep their order. The j-th of n_l items with label l, of N, counted from 0, may come when
    more than j · N / n_l are due, and must be among the first ⌈(j + 1) · N / n_l⌉; of those that may come, the one that
    is due first does, and of equal ones the one that stands first in ``items``. Such an order always exists (the quota
    method of apportionment, Balinski & Young 1975; earliest due date first, Steiner & Yeomans 1993).
    """
    places: dict[Hashable, list[int]] = {}
    for place, item in enumerate(items):
        places.setdefault(label(item), []).append(place)
    total = len(items)
    from_then_on: list[list[tuple[int, int]]] = [[] for _ in items]
    for of_label in places.values():
        count = len(of_label)
        for number, place in enumerate(of_label):
            due = -(-(number + 1) * total // count)
            from_then_on[number * total // count].append((due, place))
    able: list[tuple[int, int]] = []
    order: list[T] = []
    for arriving in from_then_on:
        for one in arriving:
            heapq.heappush(able, one)
        order.append(items[heapq.heappop(able)[1]])
    return order
