"""A base that holds one constant."""

from __future__ import annotations

import json

from flows.studies.context import StageContext


def train(stage: StageContext) -> None:
    """Write the constant."""
    (stage.output / "config.json").write_text(json.dumps({"value": stage.params.value}), encoding="utf-8")
