"""Plots of a leaderboard as inline SVG: quality against rate with its Pareto front, and rows of intervals.

Text is text, colours are classes of the page's style sheet, and every point says in words what it is.
"""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from flows.ledger.leaderboards import Entry, Panel
from flows.ledger.scales import LOG_FROM, Scale, fit, tick_words
from flows.ledger.verdicts import number, spell_interval

COLOURS = 8
_SHAPES = ("circle", "square", "triangle", "diamond")
_WIDTH, _HEIGHT = 460.0, 340.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 58.0, 12.0, 14.0, 46.0


@dataclass(frozen=True)
class Series:
    """One arm of one paper on a leaderboard: its label, colour and mark."""

    slug: str
    variant: str
    arm: str
    index: int

    @property
    def colour(self) -> str:
        """Class of its colour."""
        return f"c{self.index % COLOURS}"

    @property
    def shape(self) -> str:
        """Its mark: with the colour it tells 32 series apart."""
        return _SHAPES[self.index // COLOURS % len(_SHAPES)]


def series_of(panels: Sequence[Panel]) -> dict[tuple[str, str, str], Series]:
    """Return the series of a leaderboard's panels by (paper, variant, arm), with the same marks in every plot."""
    keys = dict.fromkeys(_key(entry) for panel in panels for entry in panel.entries)
    return {key: Series(*key, index) for index, key in enumerate(keys)}


def _key(entry: Entry) -> tuple[str, str, str]:
    return entry.slug, entry.variant, entry.arm


def rate_plot(panel: Panel, series: Mapping[tuple[str, str, str], Series], rate_words: str, rate_unit: str) -> str:
    """Draw a metric against the rate: every entry with its seeds and interval, and the Pareto front.

    Args:
        panel: Entries with a rate.
        series: Marks by (paper, variant, arm).
        rate_words: What the rate is.
        rate_unit: Its unit.

    Returns:
        An `<svg>` element with a text alternative.
    """
    entries = panel.entries
    x = fit((entry.rate or 0.0 for entry in entries), _LEFT, _WIDTH - _RIGHT, margin=0.05)
    y = _quality_scale(entries)
    unit = f" ({panel_unit})" if (panel_unit := entries[0].summary.unit) else ""
    parts = _frame(x, y, f"{panel.metric}{unit}", f"{rate_words} ({rate_unit})" if rate_unit else rate_words)
    parts.append(_front(entries, x, y))
    grouped: dict[tuple[str, str, str], list[Entry]] = {}
    for entry in entries:
        grouped.setdefault(_key(entry), []).append(entry)
    # What is on the front is drawn last, so that nothing lies over it.
    for key, members in sorted(grouped.items(), key=lambda item: any(entry.front for entry in item[1])):
        parts.append(_line_of(sorted(members, key=lambda entry: entry.rate or 0.0), series[key], x, y))
    front = [f"{entry.arm} of {entry.slug} at {number(entry.rate or 0.0)}" for entry in entries if entry.front]
    words = (
        f"{panel.metric}{unit} against {rate_words}, {len(entries)} entries of {len(grouped)} arms. "
        f"Pareto front: {', '.join(front) or 'none'}. The table below holds every value."
    )
    return (
        f'<svg class="rate" viewBox="0 0 {_WIDTH:.0f} {_HEIGHT:.0f}" role="img" aria-label="{html.escape(words)}">'
        f"{''.join(parts)}</svg>"
    )


def _quality_scale(entries: Sequence[Entry]) -> Scale:
    """Scale of the means, intervals and seeds; logarithmic where the means span a factor of 20."""
    means = [entry.summary.mean for entry in entries]
    known = [value for entry in entries for value in _extent(entry)]
    log = min(means) > 0 and max(means) / min(means) > LOG_FROM
    # An interval may reach below zero, where a logarithmic axis does not; it is cut at a tenth of the smallest mean.
    return fit([max(value, min(means) / 10) for value in known] if log else known, _HEIGHT - _BOTTOM, _TOP, log=log)


def _extent(entry: Entry) -> list[float]:
    ends = [end for end in (entry.summary.low, entry.summary.high) if math.isfinite(end)]
    return [entry.summary.mean, *ends, *entry.quantity.values.tolist()]


def _frame(x: Scale, y: Scale, up: str, across: str) -> list[str]:
    bottom = _HEIGHT - _BOTTOM
    parts = []
    for tick in y.ticks(6):
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y(tick):.1f}" y2="{y(tick):.1f}"/>')
        parts.append(f'<text x="{_LEFT - 7}" y="{y(tick) + 4:.1f}" text-anchor="end">{tick_words(tick)}</text>')
    for tick in x.ticks(6):
        parts.append(f'<line class="axis" x1="{x(tick):.1f}" x2="{x(tick):.1f}" y1="{bottom}" y2="{bottom + 4}"/>')
        parts.append(f'<text x="{x(tick):.1f}" y="{bottom + 17}" text-anchor="middle">{tick_words(tick)}</text>')
    parts.append(f'<line class="axis" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{bottom}" y2="{bottom}"/>')
    middle = (_TOP + bottom) / 2
    scale = ", logarithmic" if x.log else ""
    parts.append(
        f'<text class="name" x="13" y="{middle:.0f}" text-anchor="middle" transform="rotate(-90 13 {middle:.0f})">'
        f"{html.escape(up)}</text>"
    )
    parts.append(
        f'<text class="name" x="{(_LEFT + _WIDTH - _RIGHT) / 2:.0f}" y="{_HEIGHT - 8}" text-anchor="middle">'
        f"{html.escape(across)}{scale}</text>"
    )
    return parts


def _front(entries: Sequence[Entry], x: Scale, y: Scale) -> str:
    """Draw the front as steps: the quality that is reached at each rate."""
    points = sorted((x(entry.rate or 0.0), y(entry.summary.mean)) for entry in entries if entry.front)
    if not points:
        return ""
    path = f"M{points[0][0]:.1f} {points[0][1]:.1f}" + "".join(f"H{px:.1f}V{py:.1f}" for px, py in points[1:])
    return f'<path class="front" d="{path}H{_WIDTH - _RIGHT:.1f}"/>'


def _line_of(members: Sequence[Entry], series: Series, x: Scale, y: Scale) -> str:
    placed = [(x(entry.rate or 0.0), y(entry.summary.mean)) for entry in members]
    parts = []
    if len(placed) > 1:
        path = " ".join(f"{px:.1f},{py:.1f}" for px, py in placed)
        parts.append(f'<polyline class="path" points="{path}"/>')
    for entry, (px, py) in zip(members, placed, strict=True):
        inner = []
        low, high = entry.summary.low, entry.summary.high
        if math.isfinite(low) and math.isfinite(high) and high > low:
            inner.append(f'<line class="whisker" x1="{px:.1f}" x2="{px:.1f}" y1="{y(low):.1f}" y2="{y(high):.1f}"/>')
        for value in entry.quantity.values.tolist() if len(entry.quantity.values) > 1 else []:
            inner.append(f'<circle class="seed" cx="{px:.1f}" cy="{y(value):.1f}" r="1.8"/>')
        if entry.front:
            inner.append(f'<circle class="chosen" cx="{px:.1f}" cy="{py:.1f}" r="7"/>')
        hollow = "" if entry.rank is not None else " hollow"
        inner.append(mark(series.shape, px, py, hollow))
        parts.append(f"<g><title>{html.escape(_words(entry))}</title>{''.join(inner)}</g>")
    return f'<g class="series {series.colour} s{series.index}">{"".join(parts)}</g>'


def mark(shape: str, x: float, y: float, extra: str = "", size: float = 4.0) -> str:
    """Return the mark of a series at a place."""
    match shape:
        case "square":
            return f'<rect class="mark{extra}" x="{x - size + 0.4:.1f}" y="{y - size + 0.4:.1f}" ' + (
                f'width="{2 * size - 0.8:.1f}" height="{2 * size - 0.8:.1f}"/>'
            )
        case "triangle":
            corners = ((0, -size - 0.6), (size, size - 0.8), (-size, size - 0.8))
        case "diamond":
            corners = ((0, -size - 1), (size + 1, 0), (0, size + 1), (-size - 1, 0))
        case _:
            return f'<circle class="mark{extra}" cx="{x:.1f}" cy="{y:.1f}" r="{size - 0.2:.1f}"/>'
    path = " ".join(f"{x + dx:.1f},{y + dy:.1f}" for dx, dy in corners)
    return f'<polygon class="mark{extra}" points="{path}"/>'


def swatch(series: Series) -> str:
    """Return a series' mark for a legend."""
    inner = mark(series.shape, 7, 7)
    return f'<svg class="mark-swatch series {series.colour}" viewBox="0 0 14 14" aria-hidden="true">{inner}</svg>'


def _words(entry: Entry) -> str:
    summary = entry.summary
    value = (
        spell_interval(summary.mean, summary.low, summary.high, summary.unit)
        if _has_interval(entry)
        else (f"{number(summary.mean)} {summary.unit}".strip())
    )
    rate = "" if entry.rate is None else f" at {number(entry.rate)}"
    front = ", on the Pareto front" if entry.front else ""
    seeds = f"{summary.n} seed{'' if summary.n == 1 else 's'}"
    return f"{entry.arm}, {entry.slug}{rate}: {value}, {seeds}{front}"


def _has_interval(entry: Entry) -> bool:
    return math.isfinite(entry.summary.low) and math.isfinite(entry.summary.high)


_ROW_WIDTH, _ROW_HEIGHT = 220.0, 20.0


def row_scale(entries: Sequence[Entry]) -> Scale:
    """Return the common scale of the rows of one ranking."""
    return fit((value for entry in entries for value in _extent(entry)), 6.0, _ROW_WIDTH - 6.0, margin=0.02, log=False)


def row(entry: Entry, scale: Scale, series: Series) -> str:
    """Draw one entry of a ranking on the scale that its rows share; the numbers stand beside it."""
    middle = _ROW_HEIGHT / 2
    parts = [f'<line class="axis" x1="0" x2="{_ROW_WIDTH:.0f}" y1="{middle}" y2="{middle}"/>']
    if _has_interval(entry):
        left, right = scale(entry.summary.low), scale(entry.summary.high)
        parts.append(f'<line class="whisker" x1="{left:.1f}" x2="{right:.1f}" y1="{middle}" y2="{middle}"/>')
    values = entry.quantity.values.tolist()
    if len(values) > 1:
        parts += [f'<circle class="seed" cx="{scale(value):.1f}" cy="{middle}" r="2"/>' for value in values]
    hollow = "" if entry.rank is not None else " hollow"
    parts.append(mark(series.shape, scale(entry.summary.mean), middle, hollow))
    box = f'viewBox="0 0 {_ROW_WIDTH:.0f} {_ROW_HEIGHT:.0f}"'
    return f'<svg class="row series {series.colour}" {box} aria-hidden="true" focusable="false">{"".join(parts)}</svg>'
