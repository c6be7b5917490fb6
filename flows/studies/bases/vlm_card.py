"""The model card of a small vision-language model."""

from __future__ import annotations

import polars as pl

from components.multimodal.vlm import VLM
from components.training.arithmetic import arithmetic
from flows.studies.context import StageContext

_POINTS = 250  # steps between two points of the learning curve


def card(
    stage: StageContext,
    model: VLM,
    facts: dict[str, float],
    curves: pl.DataFrame,
    attempt: int,
    encoder: str,
    language: str,
) -> str:
    """Return the card: what the model is, how it was made, what it reached, and its learning curve."""
    params = stage.params
    count = sum(parameter.numel() for parameter in model.parameters())
    data = next(name for name in stage.inputs if name.startswith("data/")).removeprefix("data/")
    kinds = ", ".join(
        f"{name.removeprefix('type ')} {100 * value:.1f}%" for name, value in facts.items() if name.startswith("type ")
    )
    restarts = "no restart" if not attempt else f"{attempt} restart{'s' * (attempt > 1)} from another initialisation"
    cells = model.rows**2
    read = f", reading {_percent(facts, 'read_accuracy')}" if "read_accuracy" in facts else ""
    return f"""# {stage.paper}

A small vision-language model of scenes: the penultimate features of `{encoder}` (frozen), {cells} visual tokens
({model.rows} x {model.rows}{f", {model.merge} x {model.merge} patches joined by channel" if model.merge > 1 else ""}), a two-layer GELU projector of features that are
standardised by the mean and deviation of training scenes, and a causal transformer that started from `{language}`.
{count:,} parameters beside the encoder.

- Stage 1: captions of {min(params.align_scenes, params.train_scenes):,} scenes of {data}, projector only, {params.align_steps:,} steps of {params.batch_size}. Stage 2: eight packed
  questions of each of {params.train_scenes:,} scenes, projector and language model, {params.steps:,} steps of {params.batch_size}. AdamW {params.learning_rate:g} with cosine
  decay, seed {stage.seed}, {restarts}; {arithmetic(stage.device)}.
- Both stages also minimise the cross-entropy of what each patch shows (shape, colour, size, glyph, its place on the
  sign, the centre of an object), read at the visual tokens by linear heads that are not part of this model (weight {params.grounding_weight:g}).
- Test scenes: general questions {_percent(facts, "general_accuracy")}{read}; without the picture (zeros) {_percent(facts, "blind_accuracy")}.
  By type: {kinds}.
- Scenes with combinations of shape, colour and size that no training showed: general {_percent(facts, "combinations_general_accuracy")}.
- Use: reducing visual tokens, and judging simple pictures of scenes.
- Not for: pictures of the world.

Learning curve of stage 2 (training questions, before they are learned from; share right):

| step | general | read |
|---|---|---|
{_curve(curves, attempt)}

```python
from components.multimodal.vlm import answer, load_vlm

seeing = load_vlm(Path("bases/{stage.paper}"))      # loads bases/{encoder}, too
word, probability = answer(seeing, picture, "how many objects are there?")   # picture: uint8 (3, {stage_side(model)})
```
"""  # noqa: E501


def stage_side(model: VLM) -> str:
    """Return the side of the pictures in words, as far as the model knows it."""
    return f"side, side) of {model.patch_rows} x {model.patch_rows} patches"


def _percent(facts: dict[str, float], name: str) -> str:
    return f"{100 * facts[name]:.1f}%" if name in facts else "not asked"


def _curve(curves: pl.DataFrame, attempt: int) -> str:
    prefix = f"attempt_{attempt}_" if attempt else ""
    lines = []
    series = {
        name: curves.filter(pl.col("series") == f"{prefix}{name}_accuracy").select("step", "value")
        for name in ("general", "read")
    }
    both = series["general"].join(series["read"], on="step", suffix="_read")
    block = (pl.col("step") - 1) // _POINTS
    grouped = both.group_by(block.alias("block")).agg(
        pl.col("step").max(), pl.col("value").mean(), pl.col("value_read").mean()
    )
    for _, step, general, read in grouped.sort("block").iter_rows():
        lines.append(f"| {step:,} | {general:.3f} | {read:.3f} |")
    return "\n".join(lines)
