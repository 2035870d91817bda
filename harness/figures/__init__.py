"""The figures: one module per figure, tables in, a matplotlib Figure out.

To add a figure, add a module here with ``draw(tables)``, and its name below. It returns a Figure, or :class:`Nothing`
where these tables do not support it. The same tables give the same bytes. Matplotlib is imported when the first figure
is drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Nothing:
    """In place of a figure: why these tables have nothing to show."""

    reason: str


#: Takes the tables by name, as :func:`harness.results.tables.read` returns them.
Draw = Callable[["Mapping[str, pd.DataFrame]"], "Figure | Nothing"]

#: Name -> what the figure shows, in the order of the report.
DESCRIPTIONS = {
    "score_by_method": "Test score of each method with its 95 % interval, beside the untrained model.",
    "score_table": "Test scores of every method on every task, with the mean over the tasks.",
    "score_vs_params": "Test score against the number of parameters that train.",
    "score_vs_memory": "Test score against the peak memory of training, with the Pareto front.",
    "score_vs_time": "Test score against the time that training took, with the Pareto front.",
    "time_to_target": "The least time and energy in which each method comes near full fine-tuning.",
    "score_vs_model_size": "Test score against the size of the base model.",
    "score_vs_examples": "Test score against the number of training examples.",
    "examples_and_rank": "Test score by training examples and rank.",
    "prefix_length": "Test score against the number of virtual tokens: prefixes in every layer, and embeddings alone.",
    "score_by_bits": "What fewer bits alone cost: score and size of the untrained model, quantised.",
    "forgetting_vs_score": "What a method forgets of the base model against what it learns.",
    "learning_rates": "Validation score at every learning rate that was tried.",
    "learning_rate_regret": "What a wrong learning rate costs each method, against full fine-tuning's best rate.",
    "training_curves": "Training loss at each step.",
    "memory_by_method": "Where the memory of training goes.",
    "estimated_memory": "Peak memory as the plan estimated it against the measured one.",
    "training_speed": "Tokens per second of the training steps.",
    "cost_by_model_size": "Speed, hours and memory of training by the size of the base model.",
    "execution_factors": "What each way to train is worth: added one by one, and all but one.",
    "execution_memory": "Activations and speed of each way to train.",
    "decode_latency": "Time per generated token, or per prediction of a classifier, at batch size 1.",
    "latency_vs_batch": "Latency against the batch size, adapters merged and not.",
    "latency_vs_tenants": "Decode latency and memory against the number of tenants that one machine serves.",
    "throughput_vs_tenants": "Tokens per second against the number of tenants, and by how requests choose among them.",
    "storage_by_tasks": "Bytes to store for a number of tasks.",
    "bitdelta_sizes": "What BitDelta stores of a fine-tune.",
    "objective_ladder": "Untrained model, supervised fine-tuning and preference objectives, by several measures.",
    "reward_vs_kl": "Reward against the distance from the reference, for objectives that learn from preferences.",
    "reward_accuracy": "Share of preference pairs that each reward model orders correctly.",
    "answer_ratings": "Ratings of the methods from pairwise comparisons of their answers, on Elo's scale.",
}


def _figure(name: str) -> Draw:
    def draw(tables: Mapping[str, pd.DataFrame]) -> Figure | Nothing:
        figure: Figure | Nothing = import_module(f"harness.figures.{name}").draw(tables)
        return figure

    draw.__name__ = name
    draw.__doc__ = DESCRIPTIONS[name]
    return draw


FIGURES: dict[str, Draw] = {name: _figure(name) for name in DESCRIPTIONS}

#: The formats in which a figure can be saved.
FORMATS = ("png", "svg", "pdf")

_PIXELS = 16_000
"""The largest width and height of a PNG."""


def save(figure: Figure, folder: Path, name: str) -> tuple[Path, Path]:
    """Write ``figure`` as ``folder/name.png`` and ``folder/name.svg``; returns both paths."""
    return save_as(figure, folder, name, "png"), save_as(figure, folder, name, "svg")


def save_as(figure: Figure, folder: Path, name: str, kind: str, dots: float = 200.0) -> Path:
    """Write ``figure`` as ``folder/name.kind``, of :data:`FORMATS`; returns the path.

    A PNG has ``dots`` per inch. A figure with very many panels gets fewer, so that its file stays small. No file holds
    the date, so that the same figure gives the same bytes.
    """
    from harness.figures.style import style

    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.{kind}"
    with style():
        if kind == "png":
            figure.savefig(path, dpi=min(dots, _PIXELS / max(figure.get_size_inches())))
        else:
            figure.savefig(path, metadata={"Date": None} if kind == "svg" else {"CreationDate": None})
    return path
