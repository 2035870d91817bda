"""Set-up shared by all tests."""

from __future__ import annotations

import gc
import os
import signal

import hypothesis
import pytest

# Tests never ask a hub; set before transformers is imported anywhere.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# No test measures the machine to say how long a trial would take.
os.environ.setdefault("TUNEBENCH_FLOPS_PER_S", "1e11")
# A shell gives what it starts in the background an interrupt that is ignored, and so would all that tests start.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


# How long an example takes says how busy the machine is, nothing of the code.
hypothesis.settings.register_profile("any-speed", deadline=None)
hypothesis.settings.load_profile("any-speed")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip GPU tests, with the reason, where there is no CUDA device."""
    gpu = [item for item in items if item.get_closest_marker("gpu")]
    if not gpu:
        return
    import torch

    if not torch.cuda.is_available():
        for item in gpu:
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))


@pytest.fixture(autouse=True, scope="module")
def nothing_old_to_collect() -> None:
    """Each training collects garbage twice, and would look through all that the libraries have built to find none."""
    gc.collect()  # what an earlier module left; quick, because all that is older is frozen
    gc.freeze()
