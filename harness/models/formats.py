"""Number formats by the names of a trial. ``tf32`` is float32 whose products an accelerator rounds to 10 bits."""

from __future__ import annotations

import torch

from harness.execution import NotActive

#: A number that TF32 rounds to 1, because it keeps 10 bits behind the point (NVIDIA's A100 whitepaper, 2020).
_BELOW_TF32 = 1 + 2.0**-12
_SIZE = 512
#: NVIDIA's first cards that compute with it.
_AMPERE = (8, 0)


def torch_dtype(name: str) -> torch.dtype:
    """The format in which a trial's numbers are stored: that of ``tf32`` is float32."""
    dtype: torch.dtype = getattr(torch, "float32" if name == "tf32" else name)
    return dtype


def use(name: str, device: torch.device) -> None:
    """Let this process multiply float32 matrices as the format ``name`` does: exactly, unless it is ``tf32``.

    Raises :class:`harness.execution.NotActive` where ``device`` cannot compute in it.
    """
    if name != "tf32":
        torch.set_float32_matmul_precision("highest")
        return
    if device.type != "cuda" or torch.cuda.get_device_capability(device) < _AMPERE:
        raise NotActive(f"dtype: tf32 is a format of NVIDIA's GPUs since Ampere, and this trial runs on {device}")
    torch.set_float32_matmul_precision("high")


def rounds_products(device: torch.device) -> bool:
    """Whether products of float32 matrices are rounded to TF32 here, as a product shows that tells the two apart."""
    numbers = torch.full((_SIZE, _SIZE), _BELOW_TF32, device=device)
    return bool((numbers @ numbers / _SIZE - 1).abs().max() < _BELOW_TF32 - 1)
