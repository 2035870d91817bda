"""Tiny tenants of every kind, as tuned networks and as what a server holds of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from helpers.tenants import trained
from torch import nn

from harness.models.load import Base
from harness.models.load import load as load_base
from harness.networks.tuned import Tuned
from harness.serving.tenant import Tenant, tenant_of

#: Two of each kind that differ in size, so that padding counts.
KINDS: tuple[tuple[str, Mapping[str, Any]], ...] = (
    ("lora", {"r": 2}),
    ("lora", {"r": 5, "alpha": 3, "target_modules": ["q_proj", "down_proj"]}),
    ("adapter", {"bottleneck": 3}),
    ("adapter", {"bottleneck": 6, "variant": "pfeiffer"}),
    ("prefix", {"num_virtual_tokens": 2}),
    ("prefix", {"num_virtual_tokens": 5}),
    ("prompt", {"num_virtual_tokens": 3}),
    ("prompt", {"num_virtual_tokens": 1}),
    ("bitfit", {}),
    ("bitdelta", {"embeddings": False}),
    ("bitdelta", {"embeddings": False}),
)


@pytest.fixture(scope="session")
def base() -> Base:
    return load_base("tiny-llama", device="cpu", seed=3)


@pytest.fixture(scope="session")
def network(base: Base) -> nn.Module:
    return base.build()


@pytest.fixture(scope="session")
def tuned(base: Base) -> list[Tuned]:
    return [trained(base, method, seed, **args) for seed, (method, args) in enumerate(KINDS)]


@pytest.fixture(scope="session")
def tenants(tuned: list[Tuned], network: nn.Module) -> list[Tenant]:
    return [tenant_of(one, network, f"{one.method} {place}") for place, one in enumerate(tuned)]
