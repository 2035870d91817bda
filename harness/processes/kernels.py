"""Kernels of Jupyter under guard: nothing that a notebook starts outlives the process that executes it."""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from queue import Empty
from subprocess import TimeoutExpired
from typing import Any

from jupyter_client.asynchronous.client import AsyncKernelClient
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


class _Client(AsyncKernelClient):
    """A client that hears when its kernel is ready; jupyter_client's own waits until nothing comes for 0.2 s."""

    async def wait_for_ready(self, timeout: float | None = None) -> None:
        """Return when the kernel answers, and what it publishes arrives.

        Raises RuntimeError when the kernel is dead, and when it is not ready after ``timeout`` seconds.
        """
        limit = time.monotonic() + (math.inf if timeout is None else timeout)
        while not await self._answers():
            if not await self.is_alive():
                raise RuntimeError("the kernel died before it answered")
            if time.monotonic() > limit:
                raise RuntimeError(f"the kernel did not answer in {timeout:g} s")

    async def _answers(self) -> bool:
        """Ask, and wait a second at most for each word: the reply, and the last thing that is published about it."""
        with suppress(TimeoutError, Empty):
            reply = await self.kernel_info(reply=True, timeout=1.0)
            while True:
                word = await self.get_iopub_msg(timeout=1.0)
                about = word["parent_header"].get("msg_id") == reply["parent_header"]["msg_id"]
                if about and word["content"].get("execution_state") == "idle":
                    return True
        return False


class GuardedKernel(AsyncKernelManager):
    """Starts a module of this very interpreter as an IPython kernel, whatever the kernelspecs of this machine say."""

    guarded: Guarded
    module: str

    def _client_factory_default(self) -> type[_Client]:
        return _Client

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
