"""Diagrams of docs/explanation as SVG, drawn from the code's own tables; no script, no style, no font of their own."""

from __future__ import annotations

import math
from collections.abc import Iterable
from datetime import UTC, datetime
from html import escape

from scheduler_service.core.breaker import TRANSITIONS, BreakerState
from scheduler_service.core.dispatch_checks import DISPATCH_CHECKS, BackendFacts, Check, GateFacts
from scheduler_service.core.reasons import REASON_MEANINGS, Reason

INK, PAPER, LINE = "#1a1a1a", "#ffffff", "#4a5a6a"
FILLS = {BreakerState.CLOSED: "#dff1e2", BreakerState.OPEN: "#f9dede", BreakerState.HALF_OPEN: "#fdf2d0"}
PLACES = {BreakerState.CLOSED: (150.0, 190.0), BreakerState.OPEN: (650.0, 190.0), BreakerState.HALF_OPEN: (400.0, 425.0)}
RADIUS = 58.0
BEND = 46.0

GATE_REASONS: dict[str, tuple[Reason, ...]] = {
    "draining": (Reason.DRAINING,),
    "billing_pause": (Reason.BILLING_PAUSE,),
    "slots": (Reason.USER_TEAM_MODE, Reason.POOL_EXHAUSTED, Reason.POOL_C_FULL),
    "low_success_rate": (Reason.LOW_SUCCESS_RATE,),
    "circuit_breaker_open": (Reason.CIRCUIT_BREAKER_OPEN,),
    "availability": (Reason.NO_EXECUTOR, Reason.CONFIG_ERROR),
}
"""What each gate can record; a gate that is missing here stops the drawing."""


def _svg(width: int, height: int, title: str, parts: Iterable[str]) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'font-family="system-ui, sans-serif" font-size="14" role="img">\n<title>{escape(title)}</title>\n'
        f'<defs><marker id="tip" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="8" markerHeight="8" orient="auto">'
        f'<path d="M0 0 L10 5 L0 10 z" fill="{LINE}"/></marker></defs>\n'
        f'<rect width="{width}" height="{height}" fill="{PAPER}"/>\n'
    )
    return head + "".join(f"{part}\n" for part in parts) + "</svg>\n"


def _text(x: float, y: float, words: str, *, anchor: str = "middle", bold: bool = False, size: int = 14) -> str:
    weight = ' font-weight="bold"' if bold else ""
    return f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}" font-size="{size}" fill="{INK}"{weight}>{escape(words)}</text>'


def _arrow(path: str) -> str:
    return f'<path d="{path}" fill="none" stroke="{LINE}" stroke-width="1.6" marker-end="url(#tip)"/>'


# --- the breaker


def breaker_diagram() -> str:
    """The states of the breaker, and one arrow for each two of them with all its signals: `TRANSITIONS`."""
    signals: dict[tuple[BreakerState, BreakerState], list[str]] = {}
    for (source, signal), target in TRANSITIONS.items():
        signals.setdefault((source, target), []).append(signal.value)
    parts = [part for (source, target), names in signals.items() for part in _edge(source, target, names)]
    for state, (x, y) in PLACES.items():
        parts.append(f'<circle cx="{x:g}" cy="{y:g}" r="{RADIUS:g}" fill="{FILLS[state]}" stroke="{LINE}" stroke-width="1.6"/>')
        parts.append(_text(x, y + 5, state.value, bold=True))
    return _svg(800, 500, "The breaker's states and the signals that move it", parts)


def _edge(source: BreakerState, target: BreakerState, names: list[str]) -> list[str]:
    (x1, y1), (x2, y2) = PLACES[source], PLACES[target]
    if source is target:
        top = y1 - RADIUS
        loop = f"M{x1 - 22:g} {top + 6:g} C{x1 - 60:g} {top - 70:g} {x1 + 60:g} {top - 70:g} {x1 + 22:g} {top + 6:g}"
        return [_arrow(loop), *_stacked(x1, top - 62, names)]
    length = math.hypot(x2 - x1, y2 - y1)
    ux, uy = (x2 - x1) / length, (y2 - y1) / length
    # To the left of the way, so that the two arrows between two states part.
    nx, ny = uy, -ux
    mx, my = (x1 + x2) / 2 + nx * BEND, (y1 + y2) / 2 + ny * BEND
    start = (x1 + ux * RADIUS + nx * 14, y1 + uy * RADIUS + ny * 14)
    end = (x2 - ux * RADIUS + nx * 14, y2 - uy * RADIUS + ny * 14)
    curve = f"M{start[0]:.1f} {start[1]:.1f} Q{mx:.1f} {my:.1f} {end[0]:.1f} {end[1]:.1f}"
    anchor = "middle" if abs(ny) > 0.9 else "start" if nx > 0 else "end"
    away = BEND * 0.5 + (16 + 8 * (len(names) - 1) if anchor == "middle" else 26)
    label_x, label_y = (x1 + x2) / 2 + nx * away, (y1 + y2) / 2 + ny * away
    return [_arrow(curve), *_stacked(label_x, label_y, names, anchor)]


def _stacked(x: float, y: float, names: list[str], anchor: str = "middle") -> list[str]:
    first = y - 8 * (len(names) - 1) + 4
    return [_text(x, first + 16 * i, name, anchor=anchor, size=13) for i, name in enumerate(names)]


# --- the chain


def check_chain_diagram() -> str:
    """The gates in their order, whom each holds, and what it records: `DISPATCH_CHECKS`."""
    rows = [_gate(check) for check in DISPATCH_CHECKS]
    rows.append(("pre-flight", "one task", (Reason.PRE_FLIGHT_CHECK_FAILED,)))
    rows.append(("dispatch", "one task", (Reason.EXECUTOR_FAILED, Reason.ALREADY_RUNNING, Reason.SERVER_OVERLOADED)))
    parts: list[str] = []
    for i, (name, scope, reasons) in enumerate(rows):
        y = 20 + i * 74
        gate = "#e7eef8" if i < len(DISPATCH_CHECKS) else "#f1ece2"
        parts.append(f'<rect x="20" y="{y}" width="250" height="50" rx="6" fill="{gate}" stroke="{LINE}" stroke-width="1.6"/>')
        parts += [_text(145, y + 22, name, bold=True), _text(145, y + 40, f"holds {scope}", size=12)]
        parts.append(_arrow(f"M270 {y + 25} L330 {y + 25}"))
        assert all(reason in REASON_MEANINGS for reason in reasons)
        parts.append(_text(340, y + 30, " · ".join(reasons), anchor="start"))
        parts.append(_arrow(f"M145 {y + 50} L145 {y + 74}"))
    last = 20 + len(rows) * 74
    parts.append(_text(145, last + 18, "the run begins: success", bold=True))
    return _svg(800, last + 40, "The check chain, from top to bottom", parts)


def _gate(check: Check) -> tuple[str, str, tuple[Reason, ...]]:
    """A gate's name and whom it can hold, asked of itself; what it records is `GATE_REASONS`."""
    backend = BackendFacts(backend="any", local=True, queued=1, due=1, live_executors=1)
    verdicts = list(check(GateFacts(now=datetime(2026, 1, 1, tzinfo=UTC), backends=(backend,))))
    scopes = {verdict.backend for verdict in verdicts}
    scope = "all" if scopes == {""} else "a backend" if scopes == {"any"} else "all, or a backend"
    return verdicts[0].name, scope, GATE_REASONS[verdicts[0].name]
