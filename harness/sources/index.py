"""One pinned archive of the package index, with the mirrors, proxies and credentials that are set up for pip.

Nothing of the archive runs. For a wheel that is so with ``pip download``. For a source archive it is not: pip would
run its build backend, to learn of dependencies that nobody wants. So this file, run as a program, has pip's own finder
look for the archive, and downloads it itself.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from harness.errors import InputError

_OPTIONS = ("--no-deps", "--ignore-requires-python", "--no-input", "--disable-pip-version-check", "--quiet")


def wheel(package: str, sha256: str, folder: Path) -> Path:
    """The wheel of ``package``, name==version, in the empty ``folder``; pip takes the one with this hash.

    Raises :class:`InputError` with pip's reason.
    """
    requirement = folder / "requirement.txt"
    requirement.write_text(f"{package} --hash=sha256:{sha256}\n", encoding="utf-8")
    pip = [sys.executable, "-P", "-m", "pip", "download", *_OPTIONS, "--only-binary=:all:"]
    return _fetched([*pip, "--dest", str(folder / "archive"), "-r", str(requirement)], package, sha256, folder)


def source_archive(package: str, sha256: str, folder: Path) -> Path:
    """The source archive of ``package``, name==version, in the empty ``folder``; otherwise like :func:`wheel`.

    Where the index tells no hashes, it is any of this version: the caller looks at the hash.
    """
    (folder / "archive").mkdir()
    command = [sys.executable, "-P", "-m", "harness.sources.index", package, sha256, str(folder / "archive")]
    return _fetched(command, package, sha256, folder)


def wrong_hash(package: str, recorded: str, got: str) -> InputError:
    """The error for an archive that is not the one that was pinned."""
    return InputError(
        f"fetch: {package}: SHA-256 is {got}, recorded is {recorded}; "
        "the archive was changed on the way or on the index, so it is not used"
    )


def _fetched(command: list[str], package: str, sha256: str, folder: Path) -> Path:
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    archives = [*(folder / "archive").iterdir()] if done.returncode == 0 else []
    if len(archives) != 1:
        raise _told(package, sha256, done.stderr)
    return archives[0]


def _told(package: str, sha256: str, stderr: str) -> InputError:
    if got := re.search(r"Got\s+([0-9a-f]{64})", stderr):
        return wrong_hash(package, sha256, got[1])
    if "No space left" in stderr:
        return InputError(f"fetch: {package}: no space left; free some, or set TMPDIR and TUNEBENCH_CACHE")
    lines = [line for line in stderr.splitlines() if line.startswith("ERROR:")] or stderr.splitlines()
    reason = lines[-1].removeprefix("ERROR:").strip() if lines else "pip gave no archive"
    return InputError(
        f"fetch: {package}: {reason}; the package index must be reachable with pip, "
        "or run 'tunebench fetch' where it is and copy the cache"
    )


def main(package: str, sha256: str, folder: str) -> None:
    """Download a source archive into ``folder``. pip has no public command that does this without a build."""
    from pip._internal.commands import create_command

    name, _, version = package.partition("==")
    command: Any = create_command("download")
    options, _ = command.parse_args([*_OPTIONS, f"--no-binary={name}", package])
    with command.main_context():
        session = command.get_default_session(options)
        finder = command._build_package_finder(options=options, session=session, ignore_requires_python=True)
        links = [one.link for one in finder.find_all_candidates(name) if str(one.version) == version]
        links = [link for link in links if link.hash in (sha256, None)]
        if not links:
            sys.exit(f"ERROR: the package index has no source archive of {package} with this SHA-256")
        with session.get(links[0].url_without_fragment, headers={"Accept-Encoding": "identity"}, stream=True) as answer:
            answer.raise_for_status()
            with Path(folder, Path(links[0].filename).name).open("wb") as file:
                for chunk in answer.iter_content(1 << 20):
                    file.write(chunk)


if __name__ == "__main__":
    main(*sys.argv[1:])
