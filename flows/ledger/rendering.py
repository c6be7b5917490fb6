"""How the ledger's pages are written: templates with their style, script and drawings inside one file each."""

from __future__ import annotations

import base64
import hashlib
import itertools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from flows.declarations.files import write_if_changed
from flows.ledger import drawing
from flows.ledger.evidence import MEANING as TIER_MEANING
from flows.ledger.results import NOT_RUN, spell
from flows.ledger.verdicts import VERDICTS, number

TEMPLATES = Path(__file__).parent / "templates"
MEANING = {
    "reproduced": "every interval lies where the claim wants it",
    "contradicted": "an interval lies wholly on the other side",
    "inconclusive": "an interval straddles its bar, or a gate was not met",
    "out of scale": "needs the paper's own scale; says what it would need",
}


def environment() -> jinja2.Environment:
    """Return the templates' environment: everything is escaped, an unknown name is an error."""
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    script = (TEMPLATES / "ledger.js").read_text(encoding="utf-8")
    made.globals |= {
        "style": Markup((TEMPLATES / "ledger.css").read_text(encoding="utf-8")),
        "script": Markup(script),
        # The policy lets exactly this script run, so that nothing smuggled in through a text could.
        "script_hash": base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        "verdict_words": VERDICTS,
        "verdict_meaning": MEANING,
        "tier_meaning": TIER_MEANING,
        "not_run": NOT_RUN,
    }
    made.filters |= {
        "plot": lambda test: Markup(drawing.interval(test)),
        "spell": spell,
        "groupby_runs": _runs_of_groups,
        "slugify": slugify,
        "number": number,
        "minutes": minutes,
        "count": count,
    }
    return made


def write(path: Path, made: jinja2.Environment, template: str, **values: Any) -> None:
    """Render a template into a file that is only touched where its content changed."""
    write_if_changed(path, made.get_template(template).render(**values).encode())


def slugify(words: str) -> str:
    """Turn words into an identifier: `out of scale` to `out-of-scale`."""
    return re.sub(r"[^a-z0-9]+", "-", words.lower()).strip("-")


def minutes(value: float | None) -> str:
    """Spell a duration in minutes for a reader: `40 s`, `4.5 min`, `43 min`, `2.1 h`."""
    if value is None:
        return "not recorded"
    if value < 1:
        return f"{60 * value:.0f} s" if value >= 1 / 60 else "< 1 s"
    if value < 10:
        return f"{value:.1f} min"
    return f"{value:.0f} min" if value < 120 else f"{value / 60:.1f} h"


def count(number_of: int, noun: str) -> str:
    """Spell a number of things: `1 paper`, `1,200 items`."""
    return f"{number_of:,} {noun}{'' if number_of == 1 else 's'}"


def _runs_of_groups(tests: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Tests that follow each other in one group, together."""
    runs = itertools.groupby(tests, key=lambda test: test["group"])
    return [{"name": name, "tests": list(members)} for name, members in runs]
