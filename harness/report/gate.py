"""A regression gate's answer for people, for pull requests, for CI servers and for programs."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pandas as pd

from harness import plain
from harness.figures.panels import FACET
from harness.figures.style import bytes_text, rate_text, score_text, seconds_text
from harness.judgement.gate import FAILING, Check, Gate, Outcome
from harness.judgement.joined import SPEC
from harness.judgement.labels import labelled
from harness.judgement.tolerances import COSTS, SCORE
from harness.report.markup import markdown, markdown_table


def names(cells: pd.DataFrame) -> list[tuple[str, str]]:
    """(task · model, method with what tells it apart) of each cell; no two are the same."""
    parts = []
    for _, group in cells.groupby(FACET, dropna=False, sort=False):
        own = labelled(group)
        rate = own.learning_rate.map(lambda value: "" if pd.isna(value) else f", lr {rate_text(value)}")
        repeated = own.method.duplicated(keep=False) & own.label.duplicated(keep=False)
        parts.append((own.label + rate.where(repeated, "")).rename("name"))
    frame = cells.assign(name=pd.concat(parts).reindex(cells.index) if parts else [])
    again = frame.groupby([*FACET, "name"], dropna=False).cumcount()
    return [
        (plain.line(f"{task} · {model}"), plain.line(name if not n else f"{name} #{n + 1}"))
        for task, model, name, n in zip(frame.task, frame.model, frame.name, again, strict=True)
    ]


def headline(gate: Gate) -> str:
    """One line: how many checks said what."""
    counts = Counter(check.outcome for check in gate.checks)
    said = ", ".join(f"{counts[outcome]} {outcome}" for outcome in Outcome if counts[outcome])
    return f"{len(gate.checks)} checks of {len(gate.cells)} cells: {said}" if gate.checks else "nothing to check"


def lines(gate: Gate) -> Iterator[str]:
    """The answer as text: what regressed first, then what improved, is new, or could not be judged."""
    called = names(gate.cells)
    for outcome in _TOLD:
        for check in gate.of(outcome):
            place, name = called[check.cell]
            yield f"{outcome}: {place} · {name}: {check.quantity}{_after(_said(check))}"
    for reason, checks in _unjudged(gate).items():
        yield f"{Outcome.UNJUDGED}: {_many(len(checks), 'check')}: {reason}"
    yield from (f"differs: {note}" for note in gate.notes)
    yield from filter(None, [_reach(gate)])
    yield headline(gate)


#: What is told check by check, the most important first.
_TOLD = (Outcome.REGRESSED, Outcome.DISAPPEARED, Outcome.IMPROVED, Outcome.NEW)


def in_markdown(gate: Gate) -> str:
    """A comment for a pull request, shorter than the 65,536 characters that GitHub takes."""
    failing = len(gate.of(*FAILING))
    verdict = "no regression seen" if gate.passes else f"{_many(failing, 'check')} failed"
    parts = [f"### TuneBench: {verdict}\n", f"{headline(gate)}.\n"]
    called = names(gate.cells)
    told = [check for outcome in _TOLD for check in gate.of(outcome)]
    rows = [
        [markdown(text) for text in (check.outcome, *called[check.cell], check.quantity, _said(check))]
        for check in told[:_MOST]
    ]
    if rows:
        parts.append(markdown_table(["", "task · model", "method", "quantity", "change"], rows))
    if len(told) > _MOST:
        parts.append(f"And {len(told) - _MOST} more.\n")
    unjudged = list(_unjudged(gate).items())
    if unjudged:
        parts.append("Not judged:\n")
        parts += [f"- {_many(len(checks), 'check')}: {markdown(reason)}" for reason, checks in unjudged[:_MOST]]
        parts.append(f"- and for {len(unjudged) - _MOST} more reasons\n" if len(unjudged) > _MOST else "")
    if gate.notes:
        parts += ["What else differs:\n", *(f"- {markdown(note)}" for note in gate.notes), ""]
    return "\n".join([*parts, _reach(gate)]).rstrip() + "\n"


_MOST = 40


def in_junit(gate: Gate) -> str:
    """JUnit's XML: a suite per task and model, a test case per cell and quantity."""
    called = names(gate.cells)
    suites: dict[str, list[Check]] = {}
    for check in gate.checks:
        suites.setdefault(called[check.cell][0], []).append(check)
    root = ET.Element("testsuites", {"name": "tunebench compare", **_counts(gate.checks)})
    for place, checks in suites.items():
        suite = ET.SubElement(root, "testsuite", {"name": place, **_counts(checks)})
        for check in checks:
            title = f"{called[check.cell][1]}: {check.quantity}"
            case = ET.SubElement(suite, "testcase", {"classname": place, "name": title, "time": "0"})
            said = f"{check.outcome}{_after(plain.line(_said(check)))}"
            if check.outcome in FAILING:
                ET.SubElement(case, "failure", {"message": said, "type": check.outcome.value}).text = said
            elif check.outcome is Outcome.UNJUDGED:
                ET.SubElement(case, "skipped", {"message": said})
            else:
                ET.SubElement(case, "system-out").text = said
    ET.indent(root)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ET.tostring(root, encoding="unicode")}\n'


def _counts(checks: Any) -> dict[str, str]:
    failures = sum(check.outcome in FAILING for check in checks)
    skipped = sum(check.outcome is Outcome.UNJUDGED for check in checks)
    numbers = {"tests": len(checks), "failures": failures, "errors": 0, "skipped": skipped, "time": 0}
    return {name: str(number) for name, number in numbers.items()}


def document(gate: Gate) -> dict[str, Any]:
    """The answer for programs: changes of costs are shares, those of scores have the score's unit."""
    called = names(gate.cells)
    specs = gate.cells[SPEC].astype(object).where(gate.cells[SPEC].notna(), None).to_dict("records")
    return {
        "passes": gate.passes,
        "counts": dict(Counter(check.outcome.value for check in gate.checks)),
        "notes": list(gate.notes),
        "checks": [
            {
                "name": " · ".join(called[check.cell]),
                "quantity": check.quantity,
                "outcome": check.outcome.value,
                "reason": check.reason,
                "baseline": check.baseline,
                "candidate": check.candidate,
                "change": check.change.estimate,
                "low": check.change.low,
                "high": check.change.high,
                "p": check.p,
                "basis": check.change.basis,
                "spec": {str(name): value for name, value in specs[check.cell].items()},
            }
            for check in gate.checks
        ],
    }


def _said(check: Check) -> str:
    """'+10 % [+8 %, +12 %], 914 MB, now 1.01 GB (p 0.001); one seed: …'."""
    if check.baseline is None or check.candidate is None or check.change.estimate is None:
        return check.reason
    say, share = _SAY[check.quantity], _signed if check.quantity == SCORE else _percent
    span = ""
    if check.change.low is not None and check.change.high is not None and check.change.low < check.change.high:
        span = f" [{share(check.change.low)}, {share(check.change.high)}]"
    p = "" if check.p is None else f", p {check.p:.2g}" if check.p >= 0.001 else ", p < 0.001"
    reason = f"; {check.reason}" if check.reason else ""
    return f"{share(check.change.estimate)}{span}, {say(check.baseline)}, now {say(check.candidate)}{p}{reason}"


def _signed(value: float) -> str:
    return f"{value:+.3f}"


def _percent(share: float) -> str:
    return f"{100 * share:+.1f} %"


def _unit(column: str) -> Callable[[float], str]:
    return bytes_text if column.endswith("_bytes") else seconds_text


_SAY: dict[str, Callable[[float], str]] = {SCORE: score_text, **{cost.name: _unit(cost.columns[0]) for cost in COSTS}}


def _unjudged(gate: Gate) -> dict[str, list[Check]]:
    """Why -> the checks that could not be judged for that reason, named by their quantity."""
    reasons: dict[str, list[Check]] = {}
    for check in gate.of(Outcome.UNJUDGED):
        reasons.setdefault(f"{check.quantity}: {check.reason}", []).append(check)
    return reasons


def _reach(gate: Gate) -> str:
    """How small a change of a score could hide, where one was judged; else ''."""
    widths = [
        (check.change.high - check.change.low) / 2
        for check in gate.checks
        if check.quantity == SCORE and check.change.high is not None and check.change.low is not None
    ]
    if not widths:
        return ""
    return (
        f"A change of a score that is smaller than its interval can hide, up to ±{max(widths):.3f} here, and a "
        "somewhat larger one behind the correction for all comparisons."
    )


def _many(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _after(said: str) -> str:
    return f": {said}" if said else ""
