"""What a study's page of leaderboards shows: plots of quality against rate, and rankings with their comparisons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from flows.ledger import plots
from flows.ledger.leaderboards import Board, Entry, Panel, Ranking
from flows.ledger.metric_tables import DIRECTION, cell_words, normaliser_words
from flows.ledger.verdicts import number, to_precision


def board_view(board: Board, titles: Mapping[str, str], states: Mapping[tuple[str, str, str], str]) -> dict[str, Any]:
    """Return what the page shows of one leaderboard.

    Args:
        board: The leaderboard.
        titles: Title of each paper.
        states: Whether the numbers of (paper, profile, variant) are "current".
    """
    series = plots.series_of(board.panels)
    rate = board.declared.rate
    budgets = list(dict.fromkeys((panel.budget, panel.at) for panel in board.panels))
    return {
        "name": board.name,
        "declared": board.declared,
        "papers": [(slug, titles[slug]) for slug in board.papers],
        "missing": board.missing,
        "common": _common(board),
        "legend": [
            {"series": mark, "swatch": Markup(plots.swatch(mark)), "several": len(board.papers) > 1}
            for mark in series.values()
        ],
        "budgets": [
            {
                "words": _budget_words(budget, at, len(budgets) > 1),
                "panels": [
                    _panel_view(panel, series, rate.says if rate else "", rate.unit if rate else "", states)
                    for panel in board.panels
                    if (panel.budget, panel.at) == (budget, at)
                ],
            }
            for budget, at in budgets
        ],
    }


def _common(board: Board) -> list[str]:
    words = [f"data {board.declared.data}"] if board.declared.data else []
    words += [
        f"{name} {value}" for name, value in board.declared.where.items() if value not in ("", board.declared.data)
    ]
    budgets = {panel.budget for panel in board.panels}
    if len(budgets) == 1:
        words += [f"{name.replace('_', ' ')} {_value(value)}" for name, value in next(iter(budgets))]
    return [word.replace("_", " ") for word in words]


def _value(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _budget_words(budget: tuple[tuple[str, Any], ...], at: str, several: bool) -> str:
    words = [f"{name.replace('_', ' ')} {_value(value)}" for name, value in budget] if several else []
    if at:
        words.insert(0, at.replace(",", ", "))
    return ", ".join(words)


def _panel_view(
    panel: Panel,
    series: Mapping[tuple[str, str, str], plots.Series],
    rate_words: str,
    rate_unit: str,
    states: Mapping[tuple[str, str, str], str],
) -> dict[str, Any]:
    entries = panel.entries
    summaries = [entry.summary for entry in entries]
    several = len({entry.rate for entry in entries}) > 1
    return {
        "metric": panel.metric,
        "says": panel.fact.says,
        "unit": summaries[0].unit,
        "better": DIRECTION[panel.fact.better],
        "hygiene": normaliser_words(summaries),
        "plot": Markup(plots.rate_plot(panel, series, rate_words, rate_unit)) if several else "",
        "entries": len(entries),
        "rankings": [_ranking_view(ranking, series, rate_unit, states) for ranking in panel.rankings],
        "winner": _winner(panel),
    }


def _winner(panel: Panel) -> str:
    """Who leads, in a few words: the arms on the front, or those of rank 1."""
    front = list(dict.fromkeys(entry.arm for entry in panel.entries if entry.front))
    leaders = front or list(dict.fromkeys(entry.arm for entry in panel.entries if entry.rank == 1))
    return ", ".join(leaders)


def _ranking_view(
    ranking: Ranking,
    series: Mapping[tuple[str, str, str], plots.Series],
    rate_unit: str,
    states: Mapping[tuple[str, str, str], str],
) -> dict[str, Any]:
    scale = plots.row_scale(ranking.entries)
    where = (
        f"{_rate_words(ranking.rate)} {rate_unit}".strip()
        if ranking.rate is not None
        else ranking.at.replace(",", ", ")
    )
    return {
        "where": where,
        "pairing": _pairing(ranking.entries),
        "rows": [_row_view(entry, scale, series, states, ranking.entries) for entry in ranking.entries],
    }


def _rate_words(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= 1000 and rate == round(rate) else number(rate)


def _row_view(
    entry: Entry,
    scale: Any,
    series: Mapping[tuple[str, str, str], plots.Series],
    states: Mapping[tuple[str, str, str], str],
    entries: Sequence[Entry],
) -> dict[str, Any]:
    value, half = cell_words(entry.summary)
    tied = sum(other.rank == entry.rank for other in entries) > 1
    return {
        "rank": "" if entry.rank is None else f"{entry.rank}{'=' if tied else ''}",
        "rank_words": "not ranked, fewer than three seeds"
        if entry.rank is None
        else f"rank {entry.rank}{', shared' if tied else ''}",
        "slug": entry.slug,
        "variant": entry.variant,
        "profile": entry.profile,
        "arm": entry.arm,
        "series": series[entry.slug, entry.variant, entry.arm].index,
        "swatch": Markup(plots.swatch(series[entry.slug, entry.variant, entry.arm])),
        "value": value,
        "half": half,
        "n": entry.summary.n,
        "samples": entry.summary.samples,
        "plot": Markup(plots.row(entry, scale, series[entry.slug, entry.variant, entry.arm])),
        "front": entry.front,
        "best": entry.best,
        "against": _against(entry),
        "state": states.get((entry.slug, entry.profile, entry.variant), ""),
    }


def _pairing(entries: Sequence[Entry]) -> str:
    """What pairs in the comparisons of a ranking."""
    found = {entry.against.pairing for entry in entries if entry.against is not None and entry.rank is not None}
    words = {
        "seeds and items": "seeds and items pair",
        "seeds": "seeds pair",
        "items": "items pair",
        "none": "nothing pairs",
    }
    return ", or ".join(words[pairing] for pairing in words if pairing in found)


def _against(entry: Entry) -> dict[str, str] | None:
    """How an entry compares with the best of its rate: difference, interval, p, probability of improvement, pairing."""
    found = entry.against
    if found is None:
        return None
    half = (found.high - found.low) / 2
    sign = "+" if found.difference > 0 else ""
    spelled = {
        "difference": sign + to_precision(found.difference, half),
        "improvement": f"{100 * found.improvement:.0f}%",
        "p": "",
        "interval": "",
        "significant": "",
    }
    if found.p_value is not None:
        spelled["p"] = "< 0.0001" if found.p_value < 1e-4 else f"{found.p_value:.2g}"
        spelled["interval"] = f"[{to_precision(found.low, half)}, {to_precision(found.high, half)}]"
        spelled["significant"] = "yes" if found.significant() else ""
    return spelled
