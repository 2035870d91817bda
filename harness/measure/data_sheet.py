"""Peaks of accelerators by their makers' data sheets: dense matrix products, without sparsity.

NVIDIA's data sheets of A100 (2021), H100 (2023), H200 (2024), L4 and L40S (2023), and the Ada and Ampere whitepapers.
float32 is that of ordinary cores: products in TF32 are off unless somebody turns them on.
"""

from __future__ import annotations

import torch

#: A part of the name that the driver gives -> FLOPs per second in 16 and in 32 bits; the first that fits counts.
_PEAKS: tuple[tuple[str, float, float], ...] = (
    ("H200", 989e12, 67e12),
    ("H100 PCIe", 756e12, 51e12),
    ("H100", 989e12, 67e12),
    ("A100", 312e12, 19.5e12),
    ("L40S", 362e12, 91.6e12),
    ("L4", 121e12, 30.3e12),
)


def data_sheet_flops_per_s(accelerator: str | None, dtype: torch.dtype) -> float | None:
    """The peak of the accelerator with this name; None for a CPU, and for one that is not in the list."""
    for name, in_16_bits, in_32_bits in _PEAKS:
        if accelerator is not None and name in accelerator:
            return in_32_bits if dtype == torch.float32 else in_16_bits
    return None
