"""``python -m harness.runner.forkserver``: the warm parent. It has imported what takes long, and forks trials.

It imports and computes nothing: after one parallel operation of torch in a process, its forked children wait in OpenMP
without end. Files of this package may change while a run goes on; a trial that finds one changed starts cold, so that
it is of one version, the newest. Its standard input is a socket to the driver: first it says that it is ready, or why
it cannot be used; then it takes one trial a message, answers with the process id, and tells of each trial that ends. It
ends with its driver, and its trials end with it.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import select
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

from harness.files import open_log
from harness.processes.lifetime import DRIVER_VARIABLE, die_with, fork, reap
from harness.runner import kernel

#: What trials and their notebooks import; what a machine lacks is left out.
PRELOAD = (
    "typer",
    "pydantic.json_schema",
    "pydantic.main",
    "pydantic.types",
    "papermill",
    "ipykernel.kernelapp",
    "IPython.core.completerlib",
    "IPython.core.debugger",
    "IPython.extensions.storemagic",
    "tornado.platform.asyncio",
    "torch",
    "torch._dynamo",
    "torch.utils.flop_counter",
    "transformers.trainer",
    "transformers.models.auto.modeling_auto",
    "transformers.models.bert.modeling_bert",
    "transformers.models.llama.modeling_llama",
    "peft",
    "trl.trainer.dpo_trainer",
    "trl.trainer.sft_trainer",
    "datasets",
    "pandas",
    "pyarrow.csv",
    "pyarrow.parquet",
    "matplotlib.pyplot",
    "evaluate",
    "rouge_score.rouge_scorer",
    "sacrebleu",
    "bitsandbytes",
)

#: What trials and kernels import of this package.
OWN = ("harness.runner.trial", "harness.runner.streams", "harness.runner.outstream", "harness.experiment.experiment")

#: For the time of the imports. Notebooks draw where ipykernel says, which it does too late for a matplotlib that is
#: imported already. jemalloc, an allocator of pyarrow that is not in use, would start a thread. torch would create a
#: folder for what it compiles; each kernel has its own.
_ENVIRONMENT = {
    "MPLBACKEND": "module://matplotlib_inline.backend_inline",
    "JE_ARROW_MALLOC_CONF": "background_thread:false",
    "TORCHINDUCTOR_CACHE_DIR": tempfile.gettempdir(),
}

_CANARY_S = 30.0


def main() -> None:
    """Import, look whether forking is safe, then serve until the driver closes the socket."""
    sources = stamps()
    wire = socket.socket(fileno=0)
    sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]  # see harness.runner.notebook
    gc.disable()  # what is imported lives to the end: looking for garbage in it takes a tenth of the start
    preload()
    _leave_untidy()
    gc.collect()
    gc.freeze()  # what the children never change stays shared
    gc.enable()
    reason = why_not()
    wire.send(json.dumps({"cold": reason}).encode())
    if reason is None:
        _serve(wire, sources)


def stamps() -> dict[str, int]:
    """The time of the last change of each file of this package that a trial may read."""
    return {
        path: os.lstat(path).st_mtime_ns  # objects for each path would take ten times as long
        for folder, _, names in os.walk(Path(__file__).parents[1])
        for name in names
        if (path := f"{folder}/{name}").endswith((".py", ".yaml"))
    }


def preload() -> None:
    """Import :data:`PRELOAD` and :data:`OWN`, and open no GPU meanwhile."""
    before = dict(os.environ)
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    with _questions_answered(_capabilities()):
        for name in (*PRELOAD, *OWN):
            with contextlib.suppress(ImportError):
                importlib.import_module(name)
    _use_first()
    os.environ.clear()
    os.environ.update(before)


def _use_first() -> None:
    """Have done what libraries do once a process, when they are first used, and which no trial changes."""
    import nbformat
    import pydantic

    from harness import cli

    nbformat.validate(nbformat.v4.new_notebook())  # compiles the schema of notebooks
    pydantic.TypeAdapter(int)  # looks for plugins in all that is installed
    cli.parser()


def _leave_untidy() -> None:
    """Have no fork tidy up at its end what was imported: torch would take back each of its operators, one by one."""
    for finalizer in list(weakref.finalize._registry):  # type: ignore[attr-defined]
        finalizer.atexit = False


def _capabilities() -> list[tuple[int, int]]:
    """The compute capability of each GPU as a process of its own tells it; empty where there is none."""
    command = ["nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader"]
    try:
        told = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout
        return [(int(major), int(minor)) for major, minor in (line.split(".") for line in told.split())]
    except (OSError, subprocess.SubprocessError, ValueError):
        return []


@contextlib.contextmanager
def _questions_answered(capabilities: list[tuple[int, int]]) -> Iterator[None]:
    """What libraries ask PyTorch about GPUs while they are imported, answered without CUDA.

    bitsandbytes, which PEFT imports, asks for capabilities. PyTorch's own answer would initialise CUDA, and no fork of
    a process that has done so can use a GPU.
    """
    if not capabilities or os.environ.get("CUDA_VISIBLE_DEVICES") == "":
        yield
        return
    import torch

    with contextlib.ExitStack() as stack:
        for name, answer in (
            ("is_available", lambda: True),
            ("device_count", lambda: len(capabilities)),
            ("get_device_capability", lambda _device=None: min(capabilities)),
        ):
            stack.enter_context(mock.patch.object(torch.cuda, name, answer))
        yield


def why_not(canary_s: float = _CANARY_S) -> str | None:
    """Why forks of this process could not be trusted; None if they can."""
    torch = sys.modules.get("torch")
    opened = (str(link.readlink()) for link in Path("/proc/self/fd").iterdir() if link.is_symlink())
    if any(path.startswith("/dev/nvidia") for path in opened) or (torch and torch.cuda.is_initialized()):
        return "importing the libraries has initialised CUDA"
    if (how := _canary(canary_s)) is not None:
        return f"a forked process could not compute: {how}"
    # Counted after a first fork, because OpenBLAS ends its idle threads when its process forks.
    if (threads := len(list(Path("/proc/self/task").iterdir()))) != 1:
        return f"importing the libraries has started {threads - 1} threads"
    return None


def _canary(seconds: float) -> str | None:
    """What goes wrong when a forked process computes on all cores; None if nothing does."""
    pid = fork(_compute)
    descriptor = os.pidfd_open(pid)
    try:
        ended = bool(select.select([descriptor], [], [], seconds)[0])
    finally:
        os.close(descriptor)
    if not ended:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        return f"no result within {seconds:g} s"
    return None if (code := reap(pid)) == 0 else f"exit code {code}"


def _compute() -> None:
    """Products on all cores, and on a GPU where PyTorch has one."""
    import torch

    square = torch.ones(512, 512)
    if (square @ square).exp().isfinite().any() or square.numpy().dot(square.numpy()).sum() != 512.0**3:
        raise ArithmeticError("wrong result")
    if torch.cuda.is_available() and torch.ones(512, device="cuda").sum().item() != 512:
        raise ArithmeticError("wrong result on the GPU")


def _serve(wire: socket.socket, sources: Mapping[str, int]) -> None:
    """Fork what is asked for, and tell what has ended."""
    selector = selectors.DefaultSelector()
    selector.register(wire, selectors.EVENT_READ)
    while True:
        for key, _ in selector.select():
            if key.fileobj is wire:
                if not (message := wire.recv(65536)):
                    return
                pid = fork(partial(_become_trial, json.loads(message), os.getpid(), selector, sources))
                selector.register(os.pidfd_open(pid), selectors.EVENT_READ, pid)
                wire.send(json.dumps({"started": pid}).encode())
            else:
                selector.unregister(key.fileobj)
                os.close(key.fd)
                wire.send(json.dumps({"ended": key.data, "code": reap(key.data)}).encode())


def _become_trial(
    order: dict[str, Any], parent: int, selector: selectors.BaseSelector, sources: Mapping[str, int]
) -> None:
    """What a forked trial does: the same as ``tunebench trial TRIAL_DIR``."""
    die_with(parent)
    os.setsid()
    for key in list(selector.get_map().values()):
        if key.data is not None:
            os.close(key.fd)
    selector.close()
    null, log = os.open(os.devnull, os.O_RDONLY), open_log(Path(order["log"]))
    os.dup2(null, 0)  # closes the socket
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(null)
    os.close(log)
    environment = {**order["environment"], DRIVER_VARIABLE: str(parent)}
    if stamps() != sources:
        print("[tunebench] files of TuneBench have changed since this run began: a cold start", flush=True)
        command = [sys.executable, "-P", "-m", "harness.cli", "trial", order["trial"]]
        os.execve(sys.executable, command, {**os.environ, **environment})  # noqa: S606
    kernel.prepare()
    os.environ.update(environment)
    sys.argv = ["tunebench", "trial", order["trial"]]
    from harness.cli import main as tunebench

    tunebench()


if __name__ == "__main__":
    main()
