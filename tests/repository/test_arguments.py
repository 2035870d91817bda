"""What methods and objectives declare of their arguments is what a sweep and a notebook are checked against."""

from __future__ import annotations

import importlib
import typing
from typing import Any, Literal, get_args

import pytest

from harness import arguments, catalog, methods, notebooks, objectives
from harness.arguments import Count, Modules, Positive
from harness.errors import InputError

ROOMS = [*(("methods", "apply", name) for name in catalog.METHODS)]
ROOMS += [("objectives", "fit", name) for name in catalog.OBJECTIVES]


@pytest.mark.parametrize(("room", "function", "name"), ROOMS)
def test_what_is_read_from_the_source_is_what_python_sees(room: str, function: str, name: str) -> None:
    declared = arguments.declared(room, name)
    module = importlib.import_module(f"harness.{room}.{name}")
    hints = typing.get_type_hints(getattr(module, function), include_extras=True)
    # The text, because two fields of pydantic are never equal.
    assert {argument: str(kind) for argument, kind in declared.items()} == {
        argument: str(hints[argument]) for argument in declared
    }


@pytest.mark.parametrize("name", [name for name, method in catalog.METHODS.items()])
def test_every_argument_that_a_sweep_sets_is_declared_and_its_default_is_valid(name: str) -> None:
    declared = arguments.declared("methods", name)
    defaults = notebooks.parameters(catalog.METHODS[name].notebook)
    given = {argument: value for argument, value in defaults.items() if argument not in {*COMMON}}
    assert given.keys() <= declared.keys()
    arguments.check_all("methods", name, given)


COMMON = (*notebooks.COMMON, *notebooks.RUNNER)


@pytest.mark.parametrize(
    ("kind", "value", "message"),
    [
        (Count, 0, "x: must be at least 1 (given: 0)"),
        (Count, 10**6 + 1, "x: must be at most 1000000 (given: 1000001)"),
        (Positive, float("inf"), "x: must be a finite number (given: Infinity)"),
        (Positive, float("nan"), "x: must be a finite number (given: NaN)"),
        (arguments.Dropout, 1.0, "x: must be less than 1 (given: 1.0)"),
        (arguments.Dropout, float("nan"), "x: must be "),
        (arguments.Part, 1.5, "x: must be at most 1 (given: 1.5)"),
        (Modules, [], "x: must be text or must not be empty"),
        (Literal["one", "two"], "One", "x: unknown name 'One'; did you mean 'one'?"),
        (Literal["one", "two"], 1, "x: must be 'one' or 'two' (given: 1)"),
    ],
)
def test_what_is_not_valid_is_told(kind: Any, value: Any, message: str) -> None:
    with pytest.raises(InputError) as told:
        arguments.check(value, kind, "x")
    assert str(told.value).startswith(message)


@pytest.mark.parametrize(("kind", "value"), [(Count, 1), (Count, 10**6), (Positive, 1e-9), (arguments.Dropout, 0)])
def test_the_ends_of_a_range_are_valid(kind: Any, value: Any) -> None:
    arguments.check(value, kind, "x")


def test_a_call_by_hand_is_checked_like_a_sweep() -> None:
    base: Any = None  # refused before anything is built
    with pytest.raises(InputError, match=r"^lora.dropout: must be less than 1 \(given: 1.5\)$"):
        methods.apply("lora", base, dropout=1.5)
    with pytest.raises(InputError, match=r"^grpo.samples: must be at least 2 \(given: 1\)$"):
        objectives.fit("grpo", base, base, base, reward=base, samples=1)
    with pytest.raises(InputError, match=r"^sft: argument: unknown name 'pack'; did you mean 'packing'\?$"):
        objectives.fit("sft", base, base, base, pack=True)


def test_the_choices_are_those_that_the_code_knows() -> None:
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
    from transformers.activations import ACT2FN

    from harness.methods import adapter, peft, prompt, quantized
    from harness.objectives import dpo

    assert set(get_args(adapter.Placing)) == set(adapter.VARIANTS)
    assert set(get_args(adapter.Activation)) <= set(ACT2FN)
    assert set(get_args(prompt.Start)) == set(prompt._STARTS)
    assert set(quantized._ABSMAX_BITS) < set(get_args(quantized.Scheme))
    assert set(get_args(dpo.Loss)) == set(dpo.LOSSES)
    assert set(get_args(peft.Kind)) == {kind.value for kind in PEFT_TYPE_TO_CONFIG_MAPPING}
