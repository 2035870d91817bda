"""Where a study gets its tenants and its networks from."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from peft.utils import CONFIG_NAME
from torch import nn

from harness import methods
from harness.errors import InputError
from harness.models.load import Base
from harness.networks.checkpoint import Description
from harness.networks.tuned import DESCRIPTION_FILE
from harness.serving.tenant import Tenant, made_up, tenant_of

#: Method -> the sizes of a study that it takes, and what else it is given.
_ARGUMENTS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "lora": ("r", {}),
    "adapter": ("bottleneck", {}),
    "prefix": ("num_virtual_tokens", {}),
    "prompt": ("num_virtual_tokens", {}),
    "bitdelta": ("", {"embeddings": False}),
}


class Workshop:
    """One base; its network, plain and quantised; tenants of each method, from trials or made up."""

    def __init__(self, base: Base, sizes: Mapping[str, int], trained: Path | None, scale: float) -> None:
        """``sizes`` holds ``r``, ``bottleneck`` and ``num_virtual_tokens``.

        Raises :class:`harness.errors.InputError` for a folder ``trained`` that is not there.
        """
        if trained is not None and not trained.is_dir():
            raise InputError(
                f"trained: there is no folder {trained}; valid: the absolute path of one with checkpoints, or null"
            )
        self.base = base
        self.network = base.build().requires_grad_(False)
        self._sizes, self._scale = sizes, scale
        self._folders = {} if trained is None else checkpoints(base, trained)
        self._held: dict[str | None, nn.Module] = {None: self.network}
        self._tenants: dict[str, list[Tenant]] = {}
        self._trained: dict[str, int] = {}

    def held(self, scheme: str | None) -> nn.Module:
        """The base in a scheme of :mod:`harness.methods.quantized`; None: as it comes."""
        if scheme not in self._held:
            self._held[scheme] = methods.apply("quantized", self.base, scheme=scheme).model.requires_grad_(False)
        return self._held[scheme]

    def tenants(self, method: str, count: int) -> list[Tenant]:
        """``count`` tenants of ``method``: those of trials first, then made-up ones."""
        if method not in self._tenants:
            self._tenants[method] = self._from_trials(method)
            self._trained[method] = len(self._tenants[method])
        own = self._tenants[method]
        if len(own) < count:
            template = self._template(method)
            own += [made_up(template, seed, self._scale) for seed in range(len(own), count)]
        return own[:count]

    def _from_trials(self, method: str) -> list[Tenant]:
        tenants = []
        for folder in self._folders.get(method, ()):
            # A tuned classifier or reward model gives no next token; some settings cannot be served beside others.
            with contextlib.suppress(InputError, ValueError):
                if generates(folder):
                    tenants.append(tenant_of(methods.load(self.base, folder), self.network, folder.name))
        return tenants

    def _template(self, method: str) -> Tenant:
        size, rest = _ARGUMENTS[method]
        own = {size: self._sizes[size]} if size else {}
        tuned = methods.apply(method, self.base, **own, **rest)
        template: Tenant = replace(tenant_of(tuned, self.network, f"made-up {method}"), method=method)
        return template

    def origin(self, method: str) -> str:
        """In words, how many tenants of ``method`` (or of all, for 'mixed') were trained and how many made up."""
        names = [method] if method in self._tenants else ["lora"] if method == "full" else list(self._tenants)
        trained = sum(self._trained[name] for name in names)
        made = sum(len(self._tenants[name]) for name in names) - trained
        if trained and made:
            return f"{trained} from trials, {made} made up"
        return "from trials" if trained else "made up"


def generates(folder: Path) -> bool:
    """Whether an adapter of PEFT in ``folder`` belongs to a model that generates; True for other formats."""
    file = folder / CONFIG_NAME
    return not file.exists() or json.loads(file.read_text(encoding="utf-8")).get("task_type") == "CAUSAL_LM"


def checkpoints(base: Base, folder: Path) -> dict[str, list[Path]]:
    """Method -> the checkpoints of this base in ``folder``, wherever in it, in the order of their paths."""
    by_method: dict[str, list[Path]] = {}
    for path in sorted(folder.rglob(DESCRIPTION_FILE)):
        try:
            description = Description.read(path.parent)
        except (OSError, ValueError, TypeError):
            continue
        if description.model == base.spec.name:
            by_method.setdefault(description.method, []).append(path.parent)
    return by_method
