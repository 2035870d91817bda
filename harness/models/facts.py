"""A model as its specification and the files on this machine describe it; nothing is downloaded or loaded."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import catalog
from harness.models.spec import ModelSpec, RandomSource
from harness.sources import cache, here
from harness.sources.fetch import LocalSource


@dataclass(frozen=True)
class Facts:
    """What helps to decide whether to use a model."""

    name: str
    description: str
    family: str
    architecture: str
    kind: str
    params: int | None
    """Parameters, tied ones once; None where neither registry nor weights tell."""
    layers: int | None
    context: int | None
    """Positions that the model was made for, in tokens; None where its shape does not say."""
    license: str | None
    source: str
    revision: str | None
    is_here: bool
    """Whether its files are on this machine, ready to load; random weights always are."""
    methods: tuple[str, ...]
    """Methods that can run with this kind and architecture."""
    note: str | None


def facts(spec: ModelSpec) -> Facts:
    """The facts about one model. Raises :class:`harness.errors.InputError` for files that cannot be read."""
    layers, context = _shape(spec)
    return Facts(
        name=spec.name,
        description=spec.description,
        family=spec.family,
        architecture=spec.architecture,
        kind=spec.kind,
        params=spec.params if spec.params is not None else stored_params(spec),
        layers=layers,
        context=context,
        license=spec.license,
        source=_source(spec),
        revision=spec.revision(),
        is_here=is_here(spec),
        methods=tuple(
            method.name
            for method in catalog.METHODS.values()
            if spec.kind in method.model_kinds and (not method.families or spec.architecture in method.families)
        ),
        note=spec.remark,
    )


def is_here(spec: ModelSpec) -> bool:
    """Whether the model can be loaded without a download or a conversion."""
    if isinstance(spec.source, RandomSource):
        return True
    if spec.gguf is not None:
        return any(cache.is_whole(folder) for folder in (cache.root() / "models").glob(f"{spec.name}-*"))
    return here.is_here(spec.source)


def _shape(spec: ModelSpec) -> tuple[int | None, int | None]:
    """Number of layers and of positions."""
    try:
        config = spec.transformers_config().get_text_config()
    except (OSError, ValueError, KeyError, TypeError, AttributeError):  # a config.json that transformers cannot read
        return None, None
    layers, context = (getattr(config, name, None) for name in ("num_hidden_layers", "max_position_embeddings"))
    return layers if isinstance(layers, int) else None, context if isinstance(context, int) else None


def stored_params(spec: ModelSpec) -> int | None:
    """Numbers in the safetensors files of an own folder; None without such files."""
    if not (isinstance(spec.source, LocalSource) and Path(spec.source.local).is_dir()):
        return None
    from safetensors import SafetensorError, safe_open

    total = 0
    try:
        for path in sorted(Path(spec.source.local).glob("*.safetensors")):
            with safe_open(path, "numpy") as tensors:
                total += sum(math.prod(tensors.get_slice(name).get_shape()) for name in tensors.keys())  # noqa: SIM118
    except (OSError, SafetensorError):
        return None
    return total or None


def _source(spec: ModelSpec) -> str:
    """Where it comes from, as a line."""
    given: dict[str, Any] = spec.source.model_dump(exclude_none=True)
    for key in ("package", "hub", "local"):
        if key in given:
            return f"{key} {given[key]}"
    return "random weights" if spec.is_random else f"packages {', '.join(part['package'] for part in given['parts'])}"
