"""Estimate the memory of a training step without running it."""

from __future__ import annotations

from typing import Annotated

import typer

from harness.cli.app import JsonOption
from harness.cli.output import print_json, print_table, say


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command()(estimate)


def estimate(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="a model's name, or the path of a config.json or of its folder")
    ],
    method: Annotated[
        str, typer.Option(metavar="M", help="a method's name, or 'all' for a table of what fits")
    ] = "full",
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="an argument of the method, such as r=64; may be repeated"),
    ] = None,
    batch: Annotated[int, typer.Option(metavar="B", help="examples per step")] = 1,
    length: Annotated[int, typer.Option(metavar="L", help="tokens per example")] = 512,
    dtype: Annotated[str, typer.Option(help="number format of the weights")] = "bfloat16",
    optimizer_dtype: Annotated[str, typer.Option(help="number format of AdamW's two states")] = "float32",
    gradient_checkpointing: Annotated[
        bool,
        typer.Option("--gradient-checkpointing", help="store only the input of each layer, recompute the rest"),
    ] = False,
    memory: Annotated[
        str | None, typer.Option(metavar="SIZE", help="say whether the step fits in this much memory, such as 24GB")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Estimate the memory and FLOPs of a training step from the model's shape, without downloading it."""
    from harness.estimate.fits import parse_bytes

    limit = None if memory is None else parse_bytes(memory, "--memory")
    from harness.estimate.start import quick_start

    with quick_start():
        from harness.estimate import estimate_table

        answer = estimate_table.answer(
            model,
            method,
            set_ or (),
            limit,
            batch_size=batch,
            length=length,
            dtype=dtype,
            optimizer_dtype=optimizer_dtype,
            gradient_checkpointing=gradient_checkpointing,
        )
    if as_json:
        print_json(answer.document)
    else:
        print_table(answer.header, answer.rows)
        for line in answer.remarks:
            say(line)
