"""What cells print: bounded, in linear time, as a terminal would show it."""

from __future__ import annotations

import io
import re
import time
from pathlib import Path

import nbformat
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.runner import bounds, streams
from harness.runner.bounds import HEAD, LOG, TAIL
from harness.runner.notebook import Run
from harness.runner.streams import BoundedLog, Stream
from harness.sweeps.spec import Limits


def shown(*pieces: str) -> str:
    stream = Stream()
    for piece in pieces:
        stream.write(piece)
    return stream.text


@pytest.mark.parametrize(
    ("pieces", "text"),
    [
        (("a\nb",), "a\nb"),
        (("10 %\r50 %\r100 %\n", "done"), "100 %\ndone"),
        (("10 %", "\r", "50 %"), "50 %"),
        (("a\r\nb\r\n",), "a\nb\n"),
        (("abc\b\bd",), "ad"),
        (("\n\bx",), "\nx"),
    ],
)
def test_carriage_returns_and_backspaces_do_what_they_do_on_a_terminal(pieces: tuple[str, ...], text: str) -> None:
    assert shown(*pieces) == text


def test_millions_of_short_lines_take_no_time() -> None:
    stream, began = Stream(), time.process_time()
    for _ in range(100):
        stream.write("y\n" * 2**15)
    assert time.process_time() - began < 1, "a hundred times less than line by line"
    assert stream.text.endswith("y\ny\n") and "[6,422,528 characters left out]" in stream.text


@given(st.lists(st.text(alphabet="ab\n\r\b", max_size=9), max_size=9))
def test_the_text_does_not_depend_on_how_it_came(pieces: list[str]) -> None:
    assert shown(*pieces) == shown("".join(pieces)) == shown(*"".join(pieces))


@pytest.mark.parametrize("line", ["x", "x\n"])
def test_of_much_text_head_and_tail_stay_and_what_is_left_out_is_counted(line: str) -> None:
    count = 3 * (HEAD + TAIL)
    text = shown("first" + line * count + "last")
    head, _, rest = text.partition("\n[")
    number, _, tail = rest.partition(" characters left out]\n")
    assert head.startswith("first") and tail.endswith("last")
    assert len(head) == HEAD and TAIL <= len(tail) <= TAIL + HEAD
    assert len(head) + int(number.replace(",", "")) + len(tail) == len("first" + line * count + "last")


def test_the_log_is_bounded_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "LOG", 10)
    stream = io.StringIO()
    log = BoundedLog(stream)
    for _ in range(3):
        log.write("abcd")
    log.write("efgh")
    assert (
        stream.getvalue() == "abcdabcdab\n[tunebench] what the notebook printed from here on is left out of this log\n"
    )


def test_long_results_and_errors_lose_their_middle_and_long_pictures_are_left_out() -> None:
    long, middle = "a" * (HEAD + 7) + "b" * TAIL, "\n[7 characters left out]\n"
    cut = "a" * HEAD + middle + "b" * TAIL
    assert bounds.shortened(long) == cut and bounds.shortened(long[7:]) == long[7:]
    picture, larger = "p" * LOG, "p" * (LOG + 1)
    shown = bounds.content({"data": {"text/plain": long, "image/png": picture, "text/html": larger}, "metadata": {}})
    said = "[text/html of 16,777,217 characters left out]"
    assert shown == {"data": {"text/plain": f"{cut}\n{said}", "image/png": picture}, "metadata": {}}
    assert bounds.content({"data": {"image/svg+xml": larger}})["data"] == {
        "text/plain": said.replace("text/html", "image/svg+xml")
    }
    raised = bounds.content({"ename": "E", "evalue": long, "traceback": ["in a cell", long]})
    assert raised == {"ename": "E", "evalue": cut, "traceback": ["in a cell", cut]}
    assert bounds.content({"status": "ok", "code": long}) == {"status": "ok", "code": long}


def _outputs(path: Path) -> list[nbformat.NotebookNode]:
    return [o for cell in nbformat.read(path, 4).cells if cell.cell_type == "code" for o in cell.outputs]


def execute(folder: Path, code: str, time_s: float = 120) -> tuple[str, list[nbformat.NotebookNode]]:
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    book.metadata["kernelspec"] = {"name": "python3", "display_name": "Python", "language": "python"}
    nbformat.write(book, folder / "source.ipynb")
    with (folder / "log.txt").open("w") as log:
        ending = Run(folder / "source.ipynb", folder, log).execute({}, Limits(time_s=time_s))
    return ending.status, _outputs(folder / "notebook.ipynb")


@pytest.mark.slow
def test_a_line_of_a_million_characters_does_not_stop_a_trial(tmp_path: Path) -> None:
    status, (output,) = execute(tmp_path, "print('x' * 1_000_000)")
    assert status == "ok"
    assert len(output.text) < 2 * (HEAD + TAIL) and "characters left out" in output.text


@pytest.mark.slow
@pytest.mark.long
def test_two_hundred_megabytes_are_no_timeout(tmp_path: Path) -> None:
    code = "for n in range(200):\n    print('x' * 1_000_000, flush=True)\nprint('the end')"
    status, outputs = execute(tmp_path, code)
    assert status == "ok"
    assert sum(len(output.text) for output in outputs) < 2 * (HEAD + TAIL)
    assert (tmp_path / "log.txt").stat().st_size < 1.01 * LOG


@pytest.mark.slow
def test_whatever_else_a_cell_shows_is_bounded_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What programs print that it starts, what it displays, and what it raises."""
    monkeypatch.delenv("PYTEST_CURRENT_TEST")  # with it, a kernel leaves alone what programs print
    code = (
        "import os\nfrom IPython.display import display\nos.system('head -c 30000000 /dev/zero | tr \"\\\\0\" x')\n"
        "for n in range(30):\n    display({'text/plain': 'shown', 'image/png': 'p' * 1_000_000}, raw=True)\n"
        "raise ValueError('y' * 20_000_000)"
    )
    status, outputs = execute(tmp_path, code)
    kinds = [(o.output_type, o.get("name")) for o in outputs]
    assert status == "failed"
    assert kinds == [("stream", "stdout"), *[("display_data", None)] * 16, ("stream", "stderr"), ("error", None)]
    assert "displayed from here on is left out" in outputs[-2].text
    assert "characters left out" in outputs[-1].evalue and "characters left out" in outputs[0].text
    assert (tmp_path / "notebook.ipynb").stat().st_size < 2 * LOG
    assert (tmp_path / "log.txt").stat().st_size < 1.2 * LOG


@pytest.mark.slow
@pytest.mark.parametrize(
    "act",
    [
        "import ctypes\nctypes.PyDLL(None).sleep(600)",
        "import re\nre.match('(a+)+$', 'a' * 40 + 'b')",
        "import os\nos.kill(os.getpid(), 19)",
    ],
    ids=["it holds the interpreter", "it computes in C", "it is stopped"],
)
def test_a_kernel_that_hears_nothing_meets_the_time_limit(tmp_path: Path, act: str) -> None:
    status, _ = execute(tmp_path, act, time_s=6)
    assert status == "timeout"


@pytest.mark.slow
def test_what_is_printed_beside_errors_and_displays_stays(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom IPython.display import display\nprint('a')\ndisplay({'k': 1})\nprint('b')\n"
        "print('c', file=sys.stderr)\nraise ValueError('d')"
    )
    status, outputs = execute(tmp_path, code)
    assert status == "failed"
    assert [(o.output_type, o.get("name"), o.get("text")) for o in outputs[:3]] == [
        ("stream", "stdout", "a\nb\n"),
        ("display_data", None, None),
        ("stream", "stderr", "c\n"),
    ]
    assert (outputs[3].output_type, outputs[3].ename) == ("error", "ValueError")


@pytest.mark.slow
def test_a_flood_without_end_meets_the_time_limit(tmp_path: Path) -> None:
    began = time.time()
    status, _ = execute(tmp_path, "while True:\n    print('x' * 10_000)", time_s=8)
    assert status == "timeout"
    assert time.time() - began < 18, "what was still to be read is let go"


@pytest.mark.long
def test_nothing_that_is_flushed_is_lost(tmp_path: Path) -> None:
    status, _ = execute(tmp_path, "for n in range(30_000):\n    print(n, flush=True)", time_s=240)
    assert status == "ok"
    found = re.findall(r"^\d+$", (tmp_path / "log.txt").read_text(), re.MULTILINE)
    assert found == [str(n) for n in range(30_000)]
