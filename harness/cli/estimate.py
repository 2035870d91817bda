"""Estimate the memory of a training step without running it."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from harness.cli.app import JsonOption
from harness.cli.output import print_json, print_table, say
from harness.errors import InputError, cut, unknown


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command()(estimate)


def estimate(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="a model's name, or the path of a config.json or of its folder")
    ],
    method: Annotated[
        str,
        typer.Option(metavar="M", help="a method's name, the path of a file of your own, or 'all': what fits"),
    ] = "full",
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="an argument of the method, such as r=64; may be repeated"),
    ] = None,
    batch: Annotated[int, typer.Option(metavar="B", min=1, max=10**6, help="examples per step")] = 1,
    length: Annotated[int, typer.Option(metavar="L", min=1, max=10**6, help="tokens per example")] = 512,
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
    from harness import arguments
    from harness.estimate.fits import parse_bytes
    from harness.trial import DType

    limit = None if memory is None else parse_bytes(memory, "--memory")
    for where, name in (("--dtype", dtype), ("--optimizer-dtype", optimizer_dtype)):
        arguments.check(name, DType, where)
    args = _checked(model, method, set_ or ())
    from harness.estimate.start import quick_start

    with quick_start(), contextlib.redirect_stdout(sys.stderr):  # a method of one's own may print
        from harness.estimate import estimate_table

        answer = estimate_table.answer(
            model,
            method,
            args,
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


def _checked(model: str, method: str, texts: Sequence[str]) -> dict[str, Any]:
    """The arguments of the method by name, checked together with ``model`` before anything slow is imported."""
    from harness import arguments, catalog, own_method, specfile
    from harness.models.spec import at_path

    at_path(model)
    given = {}
    for text in texts:
        name, separator, value = text.partition("=")
        if not separator or not (name := name.strip()):
            raise InputError(f"--set {cut(text)}: write KEY=VALUE, such as r=64")
        if name in given:
            raise InputError(f"--set {cut(text)}: '{name}' is given twice")
        given[name] = specfile.parse_yaml(value, f"--set {cut(text)}")
    if method == "all":
        if given:
            raise InputError(f"--set {next(iter(given))}: name the method that takes it, such as --method lora")
        return {}
    if not catalog.method(method, "--method").trains:
        raise InputError(f"--method: '{method}' trains nothing; valid: all, or a method that trains")
    declared = arguments.own(method) if own_method.is_path(method) else arguments.declared("methods", method)
    for name in given:
        if name not in declared:
            raise unknown(f"--set: {method}", name, declared)
    arguments.check_all("methods", method, given)
    return given
