"""Merging inside the encoder of a vision-language model, which then reads fewer visual tokens.

The language model reads what its encoder's last block but one gives. A merged token keeps the position of the patch it
has grown from, and tokens stand in raster order, so that nothing but their number and content changes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from components.compression.flops import counted
from components.compression.merging.encoder import reduced
from components.compression.nested_pool import language_flops
from components.compression.pool import kept
from components.data.pixels import to_unit
from components.metrics.tables import MetricTable
from components.multimodal.packed_qa import PackedBatch
from components.multimodal.vlm import Seeing
from components.training.determinism import derive_seed
from flows.studies.context import StageContext
from flows.studies.multimodal.models import Asked
from flows.studies.token_reduction.methods import reducer
from flows.studies.token_reduction.questions import add_by_group, answers, asked, blind, seeing

_RANDOM = 31  # random stream of this stage


@torch.no_grad()
def measure(stage: StageContext) -> None:
    """Write accuracies on general and on reading questions at every keep ratio, and what they cost."""
    params, table = stage.params, MetricTable()
    method, model = reducer(params), seeing(stage)
    about = asked(stage, model)
    without = answers(stage, about, blind(stage, model.model))
    right: dict[float, Tensor] = {}
    for index, ratio in enumerate(params.ratios):
        generator = torch.Generator().manual_seed(derive_seed(stage.seed, _RANDOM, index))
        look = _looking(stage, model, about, method, ratio, generator)
        # Without a method every ratio is the whole network.
        if method is not None or not right:
            right[ratio] = answers(stage, about, _reading(model, look))
        else:
            right[ratio] = right[params.ratios[0]]
        at = {"ratio": ratio}
        add_by_group(table, about, "accuracy", 100 * right[ratio], unit="percent", at=at)
        add_by_group(table, about, "above_blind", 100 * (right[ratio] - without), unit="points", at=at)
        _cost(model, about, look, ratio, table)
        stage.progress(index + 1, len(params.ratios))
    table.write(stage.output)


def _looking(stage: StageContext, model: Seeing, about: Asked, method, ratio: float, generator: torch.Generator):
    """Return what looks at scenes (B,): `rows -> (visual tokens (B, s, D), the patch each has grown from (B, s))`."""
    encoder = model.encoder
    ratios = [1.0 if method is None else ratio] * (encoder.layers - 1)

    def look(rows: Tensor) -> tuple[Tensor, Tensor]:
        pictures = to_unit(about.scenes.pictures[rows].to(stage.device))
        found = reduced(encoder, pictures, method, ratios, generator=generator)
        places, order = found.places(encoder.patches).sort(1)
        # As `features_of` gives them, so that the ordinary model is met exactly.
        features = kept(found.tokens[:, 1:].half(), order)
        return model.model.projector(features.float()), places

    return look


def _reading(model: Seeing, look):
    """Return the logits of packed questions about scenes that are looked at in some way."""
    vlm, behind = model.model, model.encoder.patches + 1

    def logits(rows: Tensor, text: PackedBatch) -> Tensor:
        visual, places = look(rows)
        return vlm.predicted(vlm.read(vlm.prepare(visual, text, places=places + 1, text_place=behind)), text)

    return logits


def _cost(model: Seeing, about: Asked, look, ratio: float, table: MetricTable) -> None:
    """Add operations for one scene with one question of average length, and the visual tokens that are read."""
    first = torch.zeros(1, dtype=torch.int64)
    tokens = look(first)[0].shape[1]
    words = round(int(about.texts.lengths.sum()) / len(about.scenes.questions))
    read = language_flops(model.model, tokens, words)
    operations = counted(lambda: look(first)) + read
    table.add("gflops", operations / 1e9, unit="GFLOP", at={"ratio": ratio}, samples=1)
    table.add("language_gflops", read / 1e9, unit="GFLOP", at={"ratio": ratio}, samples=1)
    table.add("tokens", tokens, unit="tokens", at={"ratio": ratio}, samples=1)
