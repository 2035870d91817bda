"""Peaks of accelerators by their makers' data sheets: dense matrix products, without sparsity.

NVIDIA's data sheets of A100 (2021), H100 (2023), H200 (2024), L4, L40 and L40S (2023), and the Ada and Ampere
whitepapers.
float32 is that of ordinary cores: products in TF32 are off unless a trial asks for them.
"""

from __future__ import annotations

import re

#: Words of the name that the driver gives -> FLOPs per second in 16 bits, in 32 bits and in TF32; the first that fit
#: count.
_PEAKS: tuple[tuple[str, float, float, float], ...] = (
    ("H200", 989e12, 67e12, 494e12),
    ("H100 PCIe", 756e12, 51e12, 378e12),
    ("H100", 989e12, 67e12, 494e12),
    ("A100", 312e12, 19.5e12, 156e12),
    ("L40S", 362e12, 91.6e12, 183e12),
    ("L40", 181e12, 90.5e12, 90.5e12),
    ("L4", 121e12, 30.3e12, 60e12),
)


def data_sheet_flops_per_s(accelerator: str | None, number_format: str) -> float | None:
    """The peak of the accelerator with this name; None for a CPU, and for one that is not in the list."""
    for name, in_16_bits, in_32_bits, in_tf32 in _PEAKS:
        if accelerator is not None and re.search(rf"\b{name}\b", accelerator):
            return {"float32": in_32_bits, "tf32": in_tf32}.get(number_format, in_16_bits)
    return None
