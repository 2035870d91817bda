"""Builds the site, build/site/index.html: pages, notebooks, gallery and API. It needs no network and runs no notebook.

    python docs/site/build.py                           # make docs
    python docs/site/build.py --pages                   # without notebooks and API, in seconds, while you write
    python docs/site/build.py --chapters results/quick  # first take the executed notebooks of a sweep as chapters

A notebook appears with the outputs of docs/chapters/ where it was executed there, else without outputs; it says which.
Warnings, such as dead links, are errors.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
CHAPTERS = ROOT / "docs" / "chapters"
#: What the pages link to, beside each other.
RESULTS = ("README", "cpu/README", "h200/README", "serving/README", "reference/README")
LINKED = ("CHANGELOG.md", "CONTRIBUTING.md", "CITATION.cff", "Dockerfile", "LICENSE", "docs", "sweeps")
CHAPTER_FOLDERS = ("methods", "objectives", "studies")

CONTENTS = """
```{{toctree}}
:caption: {caption}
:hidden:

{pages}
```
"""
#: Part of the site -> its pages below docs/, in the order of the menu.
PARTS = {
    "Guides": ["own_data", "own_method", "models", "tasks", "sweeps", "recommend", "estimate", "cluster", "gpu", "ci"],
    "Studies": ["execution", "serving"],
    "Results": [
        "gallery",
        *(f"../results/{page}" for page in RESULTS),
        "protocol",
        "data_dictionary",
        "results_folder",
        "peft_types",
    ],
    "Inside": ["architecture", "api", "../CONTRIBUTING", "../CHANGELOG"],
}


def main(arguments: list[str]) -> int:
    """Build the site; the exit status of Sphinx."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "site", help="where the site goes")
    parser.add_argument("--chapters", type=Path, help="folder of a sweep whose executed notebooks become chapters")
    parser.add_argument("--pages", action="store_true", help="leave out notebooks and API")
    options = parser.parse_args(arguments)
    if options.chapters:
        take_chapters(options.chapters)
    source = options.out.with_name(f"{options.out.name}-source")
    stage(source, pages_alone=options.pages)
    command = [
        sys.executable,
        "-m",
        "sphinx",
        "-q",
        "-j",
        "auto",
        "-W",
        "--keep-going",
        "-c",
        str(ROOT / "docs" / "site"),
    ]
    return subprocess.run([*command, str(source), str(options.out)], check=False).returncode


def stage(source: Path, *, pages_alone: bool = False) -> None:
    """Lay out ``source`` as the repository is, so that links between pages hold, with the README as its front page."""
    shutil.rmtree(source, ignore_errors=True)
    source.mkdir(parents=True)
    for name in (*LINKED, *(f"results/{page}.md" for page in RESULTS)):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copyfile
        copy(ROOT / name, source / name)
    shutil.rmtree(source / "docs" / "chapters")
    if not pages_alone:
        shutil.copyfile(source / "docs" / "site" / "api.md", source / "docs" / "api.md")
    chapters = {} if pages_alone else {f"notebooks/{name}": book for name, book in notebooks()}
    for name, book in chapters.items():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text(json.dumps(book), encoding="utf-8")
    front = (ROOT / "README.md").read_text(encoding="utf-8")
    (source / "index.md").write_text(front + "".join(contents(source, chapters)), encoding="utf-8")


def contents(source: Path, chapters: Iterable[str]) -> Iterator[str]:
    """The menu of what is in ``source``."""
    for caption, pages in PARTS.items():
        paths = [f"docs/{page}".replace("docs/../", "") for page in pages if (source / "docs" / f"{page}.md").is_file()]
        yield CONTENTS.format(caption=caption, pages="\n".join(paths))
    for folder in CHAPTER_FOLDERS:
        names = [name.removesuffix(".ipynb") for name in chapters if name.startswith(f"notebooks/{folder}/")]
        yield CONTENTS.format(caption=f"Notebooks: {folder}", pages="\n".join(names))


def notebooks() -> Iterator[tuple[str, dict[str, Any]]]:
    """Path below notebooks/ -> the notebook, with outputs where there are some."""
    for folder in CHAPTER_FOLDERS:
        for path in sorted((ROOT / "notebooks" / folder).glob("*.ipynb")):
            name = f"{folder}/{path.name}"
            book, executed = _read(path), CHAPTERS / name
            if executed.is_file():
                chapter = _read(executed)
                if _code(chapter) != _code(book):
                    chapter["cells"].insert(2, _remark("Its code has changed since.", "site-changed"))
                yield name, chapter
            else:
                remark = "This notebook is shown without outputs. `tunebench lab` opens it, to run it."
                book["cells"].insert(1, _remark(remark))
                yield name, book


def _read(path: Path) -> dict[str, Any]:
    book: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return book


def _code(book: dict[str, Any]) -> list[str]:
    """The code of a notebook, without the parameters that papermill put into it."""
    code = [cell for cell in book["cells"] if cell["cell_type"] == "code"]
    return ["".join(cell["source"]) for cell in code if "injected-parameters" not in cell["metadata"].get("tags", [])]


def take_chapters(folder: Path) -> None:
    """Keep one executed notebook of each kind, of a decoder where there is one, with nothing of the machine in it."""
    for path in sorted(folder.glob("trials/*/notebook.ipynb")):
        book = _read(path)
        run = book["metadata"].get("papermill", {})
        name = "/".join(Path(run.get("input_path") or "none").with_suffix(".ipynb").parts[-2:])
        target = CHAPTERS / name
        is_encoder = "minilm" in str(run.get("parameters", {}).get("model"))
        if not (ROOT / "notebooks" / name).is_file() or (target.is_file() and is_encoder):
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(json.dumps(_chapter(book, folder), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _chapter(book: dict[str, Any], folder: Path) -> dict[str, Any]:
    """An executed notebook without what papermill noted, and with paths relative to the sweep's folder."""
    text = json.dumps(book["cells"], ensure_ascii=False).replace(f"{folder.resolve()}/", "")
    cells = json.loads(text)
    for cell in cells:
        cell["metadata"] = {"tags": cell["metadata"]["tags"]} if cell["metadata"].get("tags") else {}
    cells.insert(1, _remark(f"This notebook was executed by the sweep `{folder.name}`."))
    kernel = book["metadata"]["kernelspec"]
    return {**book, "cells": cells, "metadata": {"kernelspec": kernel}}


def _remark(text: str, cell_id: str = "site-remark") -> dict[str, Any]:
    return {"cell_type": "markdown", "id": cell_id, "metadata": {}, "source": f"*{text}*"}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
