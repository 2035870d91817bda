"""The lists of mutants fit the code: what they change stands there, and the tests that they name are there."""

from __future__ import annotations

from mutants.mutant import read_all

MUTANTS = read_all()


def test_there_are_enough_and_none_is_listed_twice() -> None:
    changes = [(mutant.file, mutant.before, mutant.after) for mutant in MUTANTS]
    assert len(MUTANTS) >= 200
    assert sorted(change for change in changes if changes.count(change) > 1) == []


def test_every_mutant_changes_one_line_that_stands_there() -> None:
    faults = {mutant.name: mutant.fault() for mutant in MUTANTS}
    assert {name: fault for name, fault in faults.items() if fault is not None} == {}


def test_an_equivalent_mutant_says_why() -> None:
    assert [m.name for m in MUTANTS if m.equivalent is not None and len(m.equivalent) < 20] == []
