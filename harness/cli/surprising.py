"""What ``tunebench judge --perplexity`` does: the untouched models read what the tuned ones answered."""

from __future__ import annotations

from pathlib import Path

from harness.cli.fresh import follow_records
from harness.cli.output import say
from harness.errors import InputError
from harness.judgement import surprise
from harness.judgement.surprise import Surprise
from harness.results.files import read


def measure(folder: Path) -> None:
    """Measure what is not known yet, model by model, and keep it.

    Raises :class:`InputError` where no trial stored a free answer, or a model cannot be found.
    """
    follow_records(folder)
    tables = read(folder)
    known = surprise.read(folder)
    waiting = surprise.unmeasured(tables, known)
    if not waiting:
        if not known:
            raise InputError(f"{folder}: no trial stored a free answer; only texts have a perplexity")
        say("every stored answer was read already")
        return
    for model, answers in waiting.items():
        say(f"{model} reads {len(answers)} answers")
        known += _read(model, _address(folder, model), answers)
        path = surprise.write(folder, known)
    say(f"{path}; 'tunebench report' shows the perplexities")


def _read(model: str, address: str, answers: list[tuple[str, str]]) -> list[Surprise]:
    from harness.models.load import load
    from harness.tasks.surprise import answer_nats

    costs = answer_nats(load(address), answers)
    return [
        Surprise(model, surprise.digest(prompt, answer), nats, tokens)
        for (prompt, answer), (nats, tokens) in zip(answers, costs, strict=True)
    ]


def _address(folder: Path, model: str) -> str:
    """Where the model of that name is: as the plan says, or, where none can be read, by its name."""
    from harness.ledger.ledger import Ledger

    try:
        rows = Ledger.open(folder).plan.rows
    except InputError:
        return model
    return next((row.trial.address("model") for row in rows if row.trial.model == model), model)
