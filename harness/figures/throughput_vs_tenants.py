"""How much does one machine serve, as tenants grow in number? (Sheng et al. 2023, table 3; Chen et al. 2023)"""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd
from matplotlib.figure import Figure

from harness.figures import published
from harness.figures.lines import Series, draw_lines, line_views
from harness.figures.panels import Nothing, Panel, Tables, View, compose
from harness.figures.published_panels import lines_view
from harness.figures.serving_rows import NO_STUDY, disturbed_note, rate_text, served, tenants_text
from harness.figures.words import leading

_Y_LABEL = "New tokens per second (log scale)"
_TENANTS = Series("tenants", "Tenants, one request each (log scale)", lambda count: f"{count:g}", "tokens_per_s",
                  rate_text, None, None, log_y=True)  # fmt: skip
_POPULARITIES = ("distinct", "uniform", "zipf", "identical")
_POPULARITY = Series("place", "How requests choose among the tenants", lambda place: _POPULARITIES[int(place)],
                     "tokens_per_s", rate_text, None, None, log_x=False, log_y=True,
                     is_series=False)  # fmt: skip


def draw(tables: Tables) -> Figure | Nothing:
    """New tokens per second of whole batches: against the tenants, and by how requests choose among them."""
    frame = served(tables, "whole")
    frame = frame[frame.tokens_per_s > 0].assign(variant=lambda rows: rows.strategy)
    if frame.empty:
        return Nothing(NO_STUDY)
    by_tenants = frame[(frame.popularity == "distinct") & (frame.requests == frame.tenants)]
    by_tenants = by_tenants.assign(what=_what("one request each", by_tenants))
    views = line_views(by_tenants, _draw_tenants, ["model", "what"], _TENANTS)
    places = {name: place for place, name in enumerate(_POPULARITIES)}
    for (_, batch), group in frame.groupby(["tenants", "requests"], sort=True):
        size = f"{tenants_text(group.tenants.iloc[0])}, {batch} requests"
        chosen = group.assign(place=group.popularity.map(places), what=_what(size, group))
        views += line_views(chosen, _draw_popularity, ["model", "what"], _POPULARITY)
    if not views:
        return Nothing("the serving study has one number of tenants, and one way to choose among them")
    return compose([*views, _sheng(), _chen()], height=lambda lines: max(3.8, 1.2 + 0.2 * lines))


def _what(size: str, frame: pd.DataFrame) -> str:
    return " · ".join(filter(None, (size, disturbed_note(frame))))


def _draw_tenants(panel: Panel, frame: pd.DataFrame) -> str:
    draw_lines(panel, frame.assign(label=frame.strategy), _TENANTS, _Y_LABEL)
    return _finding(frame.assign(label=frame.strategy), "tenants", lambda count: f"with {tenants_text(count)}")


def _draw_popularity(panel: Panel, frame: pd.DataFrame) -> str:
    draw_lines(panel, frame.assign(label=frame.strategy), _POPULARITY, _Y_LABEL)
    return _finding(frame.assign(label=frame.strategy), "place", lambda place: f"if {_POPULARITIES[int(place)]}")


def _finding(frame: pd.DataFrame, x: str, said: Callable[[float], str]) -> str:
    """Who serves most at both ends; the base alone serves no tenants, and is left out where there are others."""
    tenants = frame[frame.strategy != "base alone"]
    frame = frame if tenants.empty else tenants
    parts = []
    for end in dict.fromkeys((frame[x].min(), frame[x].max())):
        most = leading(frame[frame[x] == end], "tokens_per_s", True, rate_text)
        parts.append(f"{most.who} highest {said(end)} ({most.text} tokens/s)")
    return ", ".join(parts)


def _sheng() -> View:
    frame = published.read("sheng2023_slora", model="llama-7b", metric="requests_per_s")
    parts = frame.setting.str.extract(r"(S1).*; (\d+) adapters")
    frame = frame.assign(tenants=parts[1].astype(float), label=frame.method.str.replace("_", "-"))
    frame = frame[parts[0].notna() & frame.value.notna()]
    series = Series("tenants", "Adapters (log scale)", lambda count: f"{count:g}")
    wide = frame.pivot_table(index="tenants", columns="method", values="value")
    said = f"With 100 adapters, S-LoRA serves {wide.s_lora[100.0] / wide.peft[100.0]:.0f} times the requests of PEFT"
    return lines_view(frame, "Llama-7B, one A100", series, "Requests per second", said)


def _chen() -> View:
    frame = published.read("chen2023_punica", model="llama-2-7b", metric="tokens_per_s")
    names = frame.setting.str.extract(r"popularity (\w+);")[0].replace({"skewed": "zipf"})
    places = names.map({name: place for place, name in enumerate(_POPULARITIES)})
    frame = frame.assign(place=places.astype(float), label=frame.method.str.replace("_", " "))
    wide = frame.pivot_table(index="place", columns="method", values="value")
    said = (
        f"With distinct adapters, Punica makes {wide.punica[0.0] / wide.vllm_without_lora[0.0]:.0f} times vLLM's "
        f"tokens; with identical ones {wide.punica[3.0] / wide.vllm_without_lora[3.0]:.2g} times"
    )
    return lines_view(frame, "Llama-2-7B, batch 32, one A100", _POPULARITY, _Y_LABEL, said)
