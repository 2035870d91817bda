"""The look of every figure: one colour and marker per method everywhere, and numbers with units."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from zlib import crc32

import matplotlib as mpl

INK = "#222222"
MUTED = "#666666"
GRID = "#e3e3e3"

#: The one palette, by name, for figures and notebooks alike. Eleven hues: Okabe & Ito (2008) without its yellow, which
#: is too pale on white, then dark ones of Tol's 'muted' scheme. Readers with every common colour vision can tell
#: them apart, and no figure relies on colour alone. The rest is for the background: references, remainders,
#: lines, highlighted cells.
COLOURS = {
    "blue": "#0072B2",
    "red": "#D55E00",
    "green": "#009E73",
    "purple": "#CC79A7",
    "orange": "#E69F00",
    "sky": "#56B4E9",
    "indigo": "#332288",
    "olive": "#999933",
    "wine": "#882255",
    "teal": "#44AA99",
    "brown": "#7B4A12",
    "grey": "#999999",
    "pale": "#cccccc",
    "muted": MUTED,
    "notice": "#f6d5c3",
}

#: Six steps from little to much, in two families of hues; the seventh is for values beyond the scale.
SHADES = ("#d9f0d3", "#a6dba0", "#5aae61", "#c2a5cf", "#9970ab", "#762a83", INK)

_OF_METHODS = tuple(COLOURS.values())[:11]
_MARKERS = "os^DvPX<>ph8"


@dataclass(frozen=True)
class Look:
    """How one method is drawn."""

    colour: str
    marker: str


#: Methods that often appear together, far apart in colour. The name of any other method decides its look.
_KNOWN = {
    "baseline": Look("#888888", "o"),
    "full": Look("#000000", "*"),
    "lora": Look(COLOURS["blue"], "o"),
    "qlora": Look(COLOURS["red"], "s"),
    "dora": Look(COLOURS["sky"], "D"),
    "adalora": Look(COLOURS["indigo"], "o"),
    "adapter": Look(COLOURS["orange"], "^"),
    "bitfit": Look(COLOURS["green"], "v"),
    "head": Look(COLOURS["brown"], "X"),
    "prompt": Look(COLOURS["purple"], "P"),
    "prefix": Look(COLOURS["wine"], "p"),
    "p_tuning": Look(COLOURS["olive"], "h"),
    "llama_adapter": Look(COLOURS["teal"], "<"),
    "ia3": Look(COLOURS["indigo"], ">"),
    "bitdelta": Look(COLOURS["olive"], "d"),
    "loha": Look(COLOURS["sky"], "s"),
    "lokr": Look(COLOURS["green"], "s"),
    "vera": Look(COLOURS["wine"], "D"),
    "oft": Look(COLOURS["brown"], "^"),
    "boft": Look(COLOURS["teal"], "^"),
    "hra": Look(COLOURS["purple"], "D"),
    "fourierft": Look(COLOURS["orange"], "P"),
    "randlora": Look(COLOURS["red"], "D"),
    "vblora": Look(COLOURS["blue"], "^"),
    "xlora": Look(COLOURS["green"], "X"),
}


def look(method: str) -> Look:
    """The colour and marker of ``method``: the same in every figure of every sweep."""
    code = crc32(method.encode())
    spelled = Look(_OF_METHODS[code % len(_OF_METHODS)], _MARKERS[code // len(_OF_METHODS) % len(_MARKERS)])
    return _KNOWN.get(method, spelled)


#: The colours of the memory table's categories.
CATEGORY_COLOURS = {
    "weights": COLOURS["blue"],
    "gradients": COLOURS["orange"],
    "optimizer": COLOURS["green"],
    "activations": COLOURS["purple"],
    "other": COLOURS["pale"],
    "not split": COLOURS["grey"],
}

#: The settings of matplotlib in which every figure is drawn.
RC = {
    "figure.facecolor": "white",
    "figure.dpi": 100,
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": MUTED,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "text.hinting": "none",  # else the width of a text depends on the dots per inch, and a label that fitted is cut
    "svg.hashsalt": "tunebench",  # the same figure gives the same bytes
}


@contextmanager
def style() -> Iterator[None]:
    """Draw in the project's style, then restore the settings from before."""
    with mpl.rc_context(RC):
        yield


def bytes_text(value: float) -> str:
    """Bytes in decimal units: 1.2e9 -> '1.2 GB'."""
    return _scaled(value, 1000.0, (" B", " kB", " MB", " GB", " TB"))


def count_text(value: float) -> str:
    """A count in short: 134515008 -> '135M'."""
    return _scaled(value, 1000.0, ("", "K", "M", "B", "T"))


def seconds_text(value: float) -> str:
    """Seconds as a person would say them: 0.0123 -> '12 ms', 754 -> '13 min'."""
    if value >= 7200:
        return f"{_digits(value / 3600)} h"
    if value >= 120:
        return f"{_digits(value / 60)} min"
    for scale, unit in ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs")):
        if value >= scale:
            return f"{_digits(value / scale)} {unit}"
    return f"{_digits(value / 1e-9)} ns" if value > 0 else "0 s"


def energy_text(value: float) -> str:
    """Joules in short: 1.2e6 -> '1.2 MJ'."""
    return _scaled(value, 1000.0, (" J", " kJ", " MJ", " GJ", " TJ"))


def percent_text(share: float) -> str:
    """A share in per cent with two significant digits, and '0 %' for zero alone: 0.0068 -> '0.68 %'."""
    value = 100 * share
    if 99.5 <= value < 100:
        return f"{value:.2f} %"
    return f"{value:.0f} %" if value >= 10 or value == 0 else f"{value:.2g} %"


def score_text(value: float) -> str:
    """A score with three decimals."""
    return f"{value:.3f}"


def rate_text(value: float) -> str:
    """A learning rate in short: 0.0005 -> '5e-4'."""
    number, exponent = f"{value:.3e}".split("e")
    return f"{float(number):g}e{int(exponent)}"


def _scaled(value: float, step: float, units: tuple[str, ...]) -> str:
    power = 0 if value < 1 else min(int(math.log(value, step) + 1e-9), len(units) - 1)
    number = _digits(value / step**power)
    if number == "1000" and power + 1 < len(units):
        return f"1{units[power + 1]}"
    return f"{number}{units[power]}"


def _digits(value: float) -> str:
    """Three significant digits, without needless zeros."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"
