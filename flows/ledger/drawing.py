"""Small drawings of the ledger page as inline SVG: an interval against its bar, curves of a training.

Colours are classes of the page's style sheet, so that the drawings follow its light and dark theme.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

from flows.ledger.results import spell
from flows.ledger.scales import fit, text_width, tick_words
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
    x = fit(known, _INSET, _WIDTH - _INSET, margin=0.08, log=False)

    accepted = [x(end) if end is not None else edge for end, edge in zip(test["accepts"], (0.0, _WIDTH), strict=True)]
    parts = [_rect(accepted[0], accepted[1]), _line(0, _WIDTH, _MIDDLE, _MIDDLE, "axis")]
    labels = list(dict.fromkeys(ends)) or [test["bar"]]
    parts += [_line(x(end), x(end), 2, 28, "bar") for end in labels]
    parts += _labels([(x(end), number(end)) for end in labels])
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


def _labels(placed: Sequence[tuple[float, str]]) -> list[str]:
    """Label bars below the drawing; two that would lie on each other share one label."""
    if len(placed) == 2:
        (left, low), (right, high) = placed
        if right - left < (text_width(low, 11) + text_width(high, 11)) / 2 + 6:
            return [_label((left + right) / 2, f"{low} to {high}")]
    return [_label(x, words) for x, words in placed]


def _label(x: float, words: str) -> str:
    half = text_width(words, 11) / 2
    anchor = "start" if x < half else "end" if x > _WIDTH - half else "middle"
    return f'<text x="{x:.1f}" y="42" text-anchor="{anchor}">{html.escape(words)}</text>'


_CURVES = (460.0, 210.0)
_LEFT, _RIGHT, _TOP, _BOTTOM = 58.0, 10.0, 10.0, 42.0
COLOURS = 8


def curves(series: str, lines: Sequence[tuple[str, int, Sequence[int], Sequence[float]]], unit: str) -> str:
    """Draw a step series of several runs, one colour for each arm.

    Args:
        series: Name of the series.
        lines: (arm, seed, steps, values) of each run.
        unit: Unit of the values.

    Returns:
        An `<svg>` element with a text alternative.
    """
    width, height = _CURVES
    bottom = height - _BOTTOM
    arms = list(dict.fromkeys(arm for arm, *_ in lines))
    x = fit((step for *_, steps, _ in lines for step in steps), _LEFT, width - _RIGHT, margin=0.0, log=False)
    y = fit((value for *_, values in lines for value in values), bottom, _TOP, margin=0.03)
    name = f"{series} ({unit})" if unit else series
    parts = []
    for tick in y.ticks(5):
        parts.append(_line(_LEFT, width - _RIGHT, round(y(tick), 1), round(y(tick), 1), "grid"))
        parts.append(f'<text x="{_LEFT - 7}" y="{y(tick) + 4:.1f}" text-anchor="end">{tick_words(tick)}</text>')
    for tick in x.ticks(6):
        parts.append(_line(x(tick), x(tick), bottom, bottom + 4, "axis"))
        parts.append(f'<text x="{x(tick):.1f}" y="{bottom + 17:.0f}" text-anchor="middle">{tick_words(tick)}</text>')
    parts.append(_line(_LEFT, width - _RIGHT, bottom, bottom, "axis"))
    middle = (_TOP + bottom) / 2
    scale = ", log" if y.log else ""
    parts.append(
        f'<text class="name" x="13" y="{middle:.0f}" text-anchor="middle" transform="rotate(-90 13 {middle:.0f})">'
        f"{html.escape(name)}{scale}</text>"
    )
    parts.append(f'<text class="name" x="{(_LEFT + width) / 2:.0f}" y="{height - 6}" text-anchor="middle">step</text>')
    for arm, seed, steps, values in lines:
        path = " ".join(f"{x(step):.1f},{y(value):.1f}" for step, value in zip(steps, values, strict=True))
        title = html.escape(f"{arm}, seed {seed}: {number(values[-1])} at step {steps[-1]:,}")
        colour = arms.index(arm) % COLOURS
        parts.append(f'<polyline class="curve c{colour}" points="{path}"><title>{title}</title></polyline>')
    ends = ", ".join(
        f"{arm} {number(sum(last) / len(last))}"
        for arm in arms
        if (last := [values[-1] for owner, _, _, values in lines if owner == arm])
    )
    words = html.escape(f"{name} over training steps; at the end: {ends}")
    box = f'viewBox="0 0 {width:.0f} {height:.0f}"'
    return f'<svg class="curves" {box} role="img" aria-label="{words}">{"".join(parts)}</svg>'
