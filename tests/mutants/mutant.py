"""A mutant: one line of the code made wrong on purpose, and the tests that should notice."""

from __future__ import annotations

from pathlib import Path

from harness.specfile import read_yaml
from harness.trial import Frozen

ROOT = Path(__file__).resolve().parents[2]


class Mutant(Frozen):
    """One entry of the lists ``tests/mutants/*.yaml``."""

    file: str
    """The file that is changed, from the root of the repository."""
    before: str
    """Text inside one line of the file that stands there once."""
    after: str
    """What stands there instead."""
    tests: tuple[str, ...]
    """What pytest runs, such as ``tests/training/test_trainer.py`` or ``…::test_name``."""
    equivalent: str | None = None
    """Why no test can tell the two apart; such a mutant is not run."""

    @property
    def name(self) -> str:
        """One line that tells this mutant from the others."""
        return f"{self.file}: {self.before.strip()}  ->  {self.after.strip()}"

    def fault(self) -> str | None:
        """What is wrong with this entry, or None."""
        path = ROOT / self.file
        if not path.is_file():
            return "there is no such file"
        count = path.read_text(encoding="utf-8").count(self.before)
        if count != 1:
            return f"'before' stands there {count} times, not once"
        if self.before == self.after:
            return "'before' and 'after' are the same"
        if "\n" in self.before.strip("\n"):
            return "'before' is more than one line"
        if missing := [test for test in self.tests if not (ROOT / test.partition("::")[0]).is_file()]:
            return f"there is no {missing[0]}"
        return None if self.tests else "no tests are named"


def read_all() -> list[Mutant]:
    """The mutants of every list, in the order of the files' names."""
    lists = sorted(Path(__file__).parent.glob("*.yaml"))
    return [Mutant.model_validate(entry, strict=False) for path in lists for entry in read_yaml(path)]
