"""Plots as SVG text: bars, and lines on logarithmic axes. They bring their own ground, light or dark."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

STYLE = """<style>
.ground{fill:#fff} text{font:13px system-ui,sans-serif;fill:#1f2328} .dim{fill:#59636e}
.grid{stroke:#d1d9e0} .bar,.f0{fill:#0969da} .must{stroke:#bc4c00} .aim{stroke:#1a7f37} .f1{fill:#bc4c00}
.f2{fill:#1a7f37} .f3{fill:#8250df} .f4{fill:#9a6700} .s0{stroke:#0969da} .s1{stroke:#bc4c00} .s2{stroke:#1a7f37}
.s3{stroke:#8250df} .s4{stroke:#9a6700} path{fill:none;stroke-width:2} .must,.aim{stroke-width:2}
@media (prefers-color-scheme:dark){.ground{fill:#0d1117} text{fill:#e6edf3} .dim{fill:#9198a1} .grid{stroke:#3d444d}
.bar,.f0{fill:#4493f8} .must,.s1{stroke:#f0883e} .aim,.s2{stroke:#3fb950} .f1{fill:#f0883e} .f2{fill:#3fb950}
.f3{fill:#ab7df8} .f4{fill:#d29922} .s0{stroke:#4493f8} .s3{stroke:#ab7df8} .s4{stroke:#d29922}}
</style>"""
COLOURS = 5
LINE = 24  # height of a bar with its gap


@dataclass(frozen=True)
class Bar:
    """``label`` before it, ``told`` behind it; ``marks``: lines across it, by class."""

    label: str
    figure: float
    told: str
    marks: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True)
class Curve:
    """Figures over the plot's sizes."""

    label: str
    figures: Sequence[float]


def _text(x: float, y: float, words: str, anchor: str = "start", kind: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" class="{kind}">{escape(words)}</text>'


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{kind}"/>'


def _picture(width: int, height: int, title: str, parts: list[str]) -> str:
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">'
    ground = f'<rect class="ground" width="{width}" height="{height}" rx="6"/>'
    return "\n".join([head, f"<title>{escape(title)}</title>", STYLE, ground, *parts, "</svg>", ""])


def bars(title: str, bars: Sequence[Bar], *, whole: float, whole_told: str, legend: Sequence[tuple[str, str]]) -> str:
    """Bars to the right of nothing, to the left where a figure is negative. ``whole``: a figure with a line of its own.

    ``legend``: classes of marks, and what they mean.
    """
    left, width = 270, 480
    low = min(0.0, *(bar.figure for bar in bars))
    high = max(whole, *(bar.figure for bar in bars))
    room = (high - low) * 0.12  # for what is told behind a bar
    low, high = low - room * (low < 0), high + room

    def at(figure: float) -> float:
        return left + (figure - low) / (high - low) * width

    bottom = 50 + LINE * len(bars)
    parts = [
        _text(12, 24, title),
        _line(at(0), 40, at(0), bottom, "grid"),
        _line(at(whole), 40, at(whole), bottom, "grid"),
    ]
    parts.append(_text(at(whole), bottom + 16, whole_told, "middle", "dim"))
    for number, (kind, meaning) in enumerate(legend):
        parts += [_line(12 + 90 * number, bottom + 6, 12 + 90 * number, bottom + 20, kind)]
        parts += [_text(18 + 90 * number, bottom + 18, meaning, kind="dim")]
    for number, bar in enumerate(bars):
        y = 46 + LINE * number
        start, end = sorted((at(0), at(bar.figure)))
        parts.append(_text(left - 8, y + 13, bar.label, "end"))
        parts.append(
            f'<rect class="bar" x="{start:.1f}" y="{y}" width="{max(1.0, end - start):.1f}" height="16" rx="2"/>'
        )
        parts += [_line(at(figure), y - 3, at(figure), y + 19, kind) for kind, figure in bar.marks]
        behind = max([bar.figure, *(figure for _, figure in bar.marks)]) if bar.figure >= 0 else bar.figure
        parts.append(
            _text(at(behind) + (6 if behind >= 0 else -6), y + 13, bar.told, "start" if behind >= 0 else "end")
        )
    return _picture(left + width + 20, bottom + 30, title, parts)


def lines(title: str, axis: str, ticks: Sequence[tuple[float, str]], panels: Mapping[str, Sequence[Curve]]) -> str:
    """Both axes logarithmic, a panel for each unit. ``ticks``: sizes and their names."""
    width, height, top, gap = 300, 220, 44, 110
    sizes = [size for size, _ in ticks]
    deepest = max(len(curves) for curves in panels.values())
    parts = [_text(12, 24, title)]
    for place, (unit, curves) in enumerate(panels.items()):
        left = 70 + place * (width + gap)
        figures = [max(figure, 1e-6) for curve in curves for figure in curve.figures]
        low, high = math.floor(math.log10(min(figures))), math.ceil(math.log10(max(figures)))
        high = max(high, low + 1)

        def x(size: float, left: int = left) -> float:
            span = math.log(sizes[-1] / sizes[0])
            return left + (math.log(size / sizes[0]) / span * width if span else 0)

        def y(figure: float, low: int = low, high: int = high) -> float:
            return top + height - (math.log10(max(figure, 1e-6)) - low) / (high - low) * height

        for power in range(low, high + 1):
            parts += [_line(left, y(10**power), left + width, y(10**power), "grid")]
            parts += [_text(left - 6, y(10**power) + 4, f"{10**power:,g} {unit}", "end", "dim")]
        for size, name in ticks:
            parts += [_line(x(size), top, x(size), top + height, "grid")]
            parts += [_text(x(size), top + height + 18, name, "middle", "dim")]
        for number, curve in enumerate(curves):
            colour = number % COLOURS
            points = [(x(size), y(figure)) for size, figure in zip(sizes, curve.figures, strict=True)]
            parts.append(f'<path class="s{colour}" d="M{" L".join(f"{a:.1f},{b:.1f}" for a, b in points)}"/>')
            parts += [f'<circle class="f{colour}" cx="{a:.1f}" cy="{b:.1f}" r="3"/>' for a, b in points]
            below = top + height + 58 + number * 18
            parts += [f'<circle class="f{colour}" cx="{left + 4}" cy="{below - 4}" r="4"/>']
            parts += [_text(left + 14, below, curve.label)]
        parts.append(_text(left + width / 2, top + height + 36, axis, "middle", "dim"))
    total = 70 + len(panels) * (width + gap) - gap + 30
    return _picture(total, top + height + 58 + deepest * 18, title, parts)
