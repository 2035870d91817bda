"""NVIDIA's management library, where it is there: what the driver knows and PyTorch does not."""

from __future__ import annotations

import importlib
import os
from typing import Any

import torch


def nvml_device(device: torch.device) -> tuple[Any, Any] | None:
    """The module ``pynvml`` and its handle of ``device``; None without the package, the driver or its leave."""
    try:
        pynvml = importlib.import_module("pynvml")
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
        uuid = str(torch.cuda.get_device_properties(device).uuid)
        name = uuid if uuid.startswith(("GPU-", "MIG-")) else f"GPU-{uuid}"
        return pynvml, pynvml.nvmlDeviceGetHandleByUUID(name)
    except (pynvml.NVMLError, AttributeError):
        return None


def process_bytes(device: torch.device) -> int | None:
    """Device memory that the driver counts for this process now, CUDA's context included; None where it cannot say."""
    connection = nvml_device(device)
    if connection is None:
        return None
    nvml, handle = connection
    try:
        running = nvml.nvmlDeviceGetComputeRunningProcesses(handle)
    except nvml.NVMLError:
        return None
    # Inside a container the driver may know this process by another number.
    return next((int(p.usedGpuMemory) for p in running if p.pid == os.getpid() and p.usedGpuMemory), None)
