"""Random weights that do not depend on the format in which they are stored."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode


class DrawnInFloat32(TorchDispatchMode):
    """Within the block, normal numbers for a 16-bit tensor on a CPU are drawn in 32 bits, and then rounded.

    Some versions of PyTorch draw them in the tensor's own format there: the same seed then gives other weights than in
    float32, and a uniform number that is rounded to 1 becomes an infinite weight. GPUs draw in 32 bits anyway.
    """

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.normal_.default and _is_coarse(args[0]):
            drawn = func(torch.empty_like(args[0], dtype=torch.float32), *args[1:], **(kwargs or {}))
            return args[0].copy_(drawn)
        return func(*args, **(kwargs or {}))


def _is_coarse(tensor: torch.Tensor) -> bool:
    return tensor.device.type == "cpu" and tensor.dtype in (torch.bfloat16, torch.float16)
