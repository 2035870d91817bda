"""``python -m harness.runner.kernel -f CONNECTION_FILE``: an IPython kernel that ends when its trial ends."""

from __future__ import annotations

import os

from harness.runner.processes import die_with


def main() -> None:
    """Tie this process to its parent, then serve until told to stop."""
    die_with(int(os.environ["JPY_PARENT_PID"]))
    from ipykernel import kernelapp

    kernelapp.launch_new_instance()


if __name__ == "__main__":
    main()
