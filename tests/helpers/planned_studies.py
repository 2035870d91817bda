"""A test helper: what is said when a study with a wrong argument is planned."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.errors import InputError
from harness.sweeps.expand import plan
from harness.sweeps.spec import load


def refusal(study: str, line: str, folder: Path) -> str:
    """The one line that refuses a sweep whose ``study`` has the arguments in ``line``."""
    file = folder / "s.yaml"
    methods = f"{{{study}: {{{line}}}}}"
    file.write_text(f"{{name: s, models: [smollm2-135m], tasks: [factual_summary], methods: {methods}}}")
    with pytest.raises(InputError) as error:
        plan(load(str(file)))
    return str(error.value)
