"""A bar for each variant, a panel for each figure, as SVG: a white ground and dark words, legible on light and dark pages."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

from tests.bench.measuring.comparison import Comparison, Figures, Spread
from tests.bench.measuring.words import number, spreads

_WIDTH, _LEFT, _RIGHT, _BAR, _GAP, _HEAD = 800, 290, 150, 18, 8, 44
_TEXT, _OURS, _OTHER, _RANGE = "#1a1a1a", "#5b9bd5", "#8a97a5", "#1a1a1a"


def plot(comparison: Comparison, rounds: Mapping[int, Mapping[str, Figures]]) -> str:
    """The medians as bars, their ranges as lines across the bars' ends. Ours, as the goals name them, are blue."""
    ours = {goal.ours for goal in comparison.goals}
    parts: list[str] = []
    top = 10
    for figure, unit in comparison.units.items():
        found = spreads(comparison, rounds, figure)
        if not found:
            continue
        parts.append(_text(10, top + 22, f"{figure}, {unit}", size=15, weight="bold"))
        top += _HEAD
        longest = max(spread.high for spread in found.values()) or 1.0
        for name, spread in found.items():
            parts += _bar(top, name, spread, longest, _OURS if name in ours else _OTHER)
            top += _BAR + _GAP
    height = top + 10
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}" '
        'font-family="system-ui, sans-serif" font-size="13" role="img">\n'
        f"<title>{escape(comparison.name)}: medians with ranges</title>\n"
        f'<rect width="{_WIDTH}" height="{height}" fill="#ffffff"/>\n'
    )
    return head + "\n".join(parts) + "\n</svg>\n"


def _bar(top: int, name: str, spread: Spread, longest: float, colour: str) -> list[str]:
    scale = (_WIDTH - _LEFT - _RIGHT) / longest
    middle = top + _BAR / 2
    low, high = _LEFT + scale * spread.low, _LEFT + scale * spread.high
    return [
        _text(_LEFT - 8, top + 14, name, anchor="end"),
        f'<rect x="{_LEFT}" y="{top}" width="{max(1.0, scale * spread.median):.1f}" height="{_BAR}" fill="{colour}"/>',
        f'<path d="M{low:.1f} {middle:.1f} H{high:.1f} M{low:.1f} {middle - 4:.1f} v8 M{high:.1f} {middle - 4:.1f} v8" '
        f'stroke="{_RANGE}" stroke-width="1.4" fill="none"/>',
        _text(high + 8, top + 14, number(spread.median)),
    ]


def _text(x: float, y: float, words: str, *, anchor: str = "start", size: int = 13, weight: str = "normal") -> str:
    style = f'text-anchor="{anchor}" font-size="{size}" font-weight="{weight}" fill="{_TEXT}"'
    return f'<text x="{x:.1f}" y="{y}" {style}>{escape(words)}</text>'
