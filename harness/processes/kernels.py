"""Kernels of Jupyter under guard: nothing that a notebook starts outlives the process that executes it."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from subprocess import TimeoutExpired
from typing import Any

from jupyter_client.connect import KernelConnectionInfo
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from jupyter_client.provisioning.local_provisioner import LocalProvisioner

from harness.processes.guarded import Guarded


class _Provisioner(LocalProvisioner):
    """Starts the kernel under its guard."""

    guarded: Guarded
    environment: Mapping[str, str]

    async def launch_kernel(self, cmd: list[str], **kwargs: Any) -> KernelConnectionInfo:
        self.cwd = kwargs.get("cwd") or str(Path.cwd())
        # The variable names the parent of another kernel, in which this command was typed.
        inherited = {name: value for name, value in kwargs["env"].items() if name != "JPY_PARENT_PID"}
        self.guarded.start(cmd, {**inherited, **self.environment}, self.cwd)
        self.process = self.guarded  # type: ignore[assignment]
        self.pid = self.guarded.pid
        return self.connection_info


class GuardedKernel(AsyncKernelManager):
    """Starts a module of this very interpreter as an IPython kernel, whatever the kernelspecs of this machine say."""

    guarded: Guarded
    module: str

    @property
    def kernel_spec(self) -> KernelSpec:
        """An IPython kernel of this interpreter."""
        # -P: the folder of a notebook holds results; no Python that lies there is imported.
        command = [sys.executable, "-P", "-m", self.module, "-f", "{connection_file}"]
        return KernelSpec(argv=command, display_name="TuneBench", language="python")

    def kill(self) -> None:
        """Kill the kernel and every process that it started, at once."""
        self.guarded.end()

    def end(self) -> int | None:
        """Kill the kernel; return the exit code that it already had (negative: a signal), or None if it was alive."""
        code = self.guarded.poll()
        self.kill()
        with suppress(TimeoutExpired):  # a process in the depths of a driver cannot be killed; nobody waits for it
            self.guarded.wait(60)
        return code


def guarded_kernel(guarded: Guarded, module: str, environment: Mapping[str, str]) -> GuardedKernel:
    """A kernel of ``module`` under ``guarded``, with ``environment`` beside what it inherits; it starts later.

    It talks over sockets in the guard's folder: private, and no other process can take a port from it.
    """
    # The system limits the path of a socket to about 100 characters.
    short = os.name == "posix" and len(str(guarded.folder)) < 80
    wires = {"connection_file": str(guarded.folder / "kernel.json"), "transport": "ipc" if short else "tcp"}
    kernel = GuardedKernel(**wires)
    kernel.guarded, kernel.module = guarded, module
    provisioner = _Provisioner(parent=kernel, kernel_spec=kernel.kernel_spec)
    provisioner.guarded, provisioner.environment = guarded, environment
    kernel.provisioner = provisioner
    return kernel
