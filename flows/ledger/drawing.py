"""Small drawings of the ledger page as inline SVG: an interval against its bar, curves of a training.

Colours are classes of the page's style sheet, so that the drawings follow its light and dark theme.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

from flows.ledger.results import spell
from flows.ledger.verdicts import number

_WIDTH, _HEIGHT, _MIDDLE = 320.0, 48.0, 15.0
_INSET = 10.0


def interval(test: Mapping[str, Any]) -> str:
    """Draw a recorded test: the region it accepts, its bar, every seed, the estimate and its interval.

    Args:
        test: A test of `verdicts.json`.

    Returns:
        An `<svg>` element with a text alternative.
    """
    low, high = test["interval"]
    points = [point["value"] for point in test["by_seed"]]
    ends = [end for end in test["accepts"] if end is not None]
    known = [value for value in (low, high, test["estimate"], *points, *ends, test["bar"]) if value is not None]
    smallest, largest = min(known), max(known)
    margin = 0.08 * (largest - smallest) or 0.1 * abs(largest) or 1.0
    smallest, largest = smallest - margin, largest + margin

    def x(value: float) -> float:
        return _INSET + (value - smallest) / (largest - smallest) * (_WIDTH - 2 * _INSET)

    accepted = [x(end) if end is not None else edge for end, edge in zip(test["accepts"], (0.0, _WIDTH), strict=True)]
    parts = [_rect(accepted[0], accepted[1]), _line(0, _WIDTH, _MIDDLE, _MIDDLE, "axis")]
    labels = list(dict.fromkeys(ends)) or [test["bar"]]
    for end in labels:
        parts.append(_line(x(end), x(end), 2, 28, "bar"))
        parts.append(_label(x(end), number(end)))
    parts += [
        f'<circle class="seed" cx="{x(value):.1f}" cy="{_MIDDLE}" r="2.6"/>' for value in points if value is not None
    ]
    # An interval that was refused for want of seeds has no ends to draw; its seeds are all there is to see.
    if not (low is None and high is None):
        left, right = (x(low) if low is not None else 0.0), (x(high) if high is not None else _WIDTH)
        parts.append(_line(left, right, _MIDDLE, _MIDDLE, "interval"))
        parts += [_line(end, end, _MIDDLE - 5, _MIDDLE + 5, "interval") for end in (left, right)]
    if test["estimate"] is not None:
        parts.append(f'<circle class="estimate" cx="{x(test["estimate"]):.1f}" cy="{_MIDDLE}" r="4.2"/>')
    words = html.escape(f"{test['test']}: {spell(test)}, {test['holds']}")
    return (
        f'<svg class="plot {test["holds"]}" viewBox="0 0 {_WIDTH:.0f} {_HEIGHT:.0f}" role="img" aria-label="{words}">'
        f"{''.join(parts)}</svg>"
    )


def _rect(left: float, right: float) -> str:
    return f'<rect class="accepted" x="{left:.1f}" y="2" width="{max(right - left, 1):.1f}" height="26"/>'


def _line(x1: float, x2: float, y1: float, y2: float, kind: str) -> str:
    return f'<line class="{kind}" x1="{x1:.1f}" x2="{x2:.1f}" y1="{y1:g}" y2="{y2:g}"/>'


def _label(x: float, words: str) -> str:
    anchor = "start" if x < 40 else "end" if x > _WIDTH - 40 else "middle"
    return f'<text x="{x:.1f}" y="42" text-anchor="{anchor}">{html.escape(words)}</text>'


def curves(series: str, lines: Sequence[tuple[str, Sequence[int], Sequence[float]]], unit: str) -> str:
    """Draw a step series of several runs, one colour for each arm.

    Args:
        series: Name of the series.
        lines: (arm, steps, values) of each run.
        unit: Unit of the values.

    Returns:
        An `<svg>` element with a text alternative.
    """
    width, height, left, bottom = 460.0, 190.0, 52.0, 28.0
    steps = [step for _, positions, _ in lines for step in positions]
    values = [value for _, _, points in lines for value in points]
    first, last, smallest, largest = min(steps), max(steps), min(values), max(values)
    arms = list(dict.fromkeys(arm for arm, _, _ in lines))
    across, up = (last - first) or 1, (largest - smallest) or 1.0

    def place(step: float, value: float) -> str:
        x = left + (step - first) / across * (width - left - 8)
        y = 8 + (largest - value) / up * (height - bottom - 8)
        return f"{x:.1f},{y:.1f}"

    parts = [
        f'<line class="axis" x1="{left}" x2="{width}" y1="{height - bottom}" y2="{height - bottom}"/>',
        f'<line class="axis" x1="{left}" x2="{left}" y1="4" y2="{height - bottom}"/>',
        f'<text x="{left - 6}" y="16" text-anchor="end">{html.escape(number(largest))}</text>',
        f'<text x="{left - 6}" y="{height - bottom}" text-anchor="end">{html.escape(number(smallest))}</text>',
        f'<text x="{left}" y="{height - 10}">{first}</text>',
        f'<text x="{width - 2}" y="{height - 10}" text-anchor="end">step {last}</text>',
    ]
    for arm, positions, points in lines:
        path = " ".join(map(place, positions, points))
        parts.append(f'<polyline class="curve c{arms.index(arm) % 8}" points="{path}"/>')
    words = html.escape(f"{series}{f' ({unit})' if unit else ''} over training steps, for {', '.join(arms)}")
    box = f'viewBox="0 0 {width:.0f} {height:.0f}"'
    return f'<svg class="curves" {box} role="img" aria-label="{words}">{"".join(parts)}</svg>'
