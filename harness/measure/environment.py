"""The machine as torch sees it."""

from __future__ import annotations

import torch


def accelerator(device: torch.device) -> str | None:
    """Name of the accelerator behind ``device``; None on CPU."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else None


def synchronize(device: torch.device) -> None:
    """Wait until everything queued on ``device`` is done, so that a clock read next is true."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
