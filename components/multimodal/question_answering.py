"""Training and testing a vision-language model on packed questions.

Letters: `B` scenes, `s` visual tokens, `D` width, `M` questions of a batch, `Q` questions in all.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from components.multimodal.packed_qa import PackedBatch, PackedTexts
from components.multimodal.vlm import VLM


def answer_loss(logits: Tensor, text: PackedBatch) -> Tensor:
    """Return the mean of -ln p(answer | picture, question), in nats per answer.

    Args:
        logits: Where something is predicted, (M, V).
        text: The packed texts.
    """
    return F.cross_entropy(logits.float(), text.targets)


def accuracies(logits: Tensor, text: PackedBatch, dense: int) -> dict[str, Tensor]:
    """Return the share of right answers to general questions and to those of the dense type, without waiting.

    Args:
        logits: (M, V).
        text: The packed questions.
        dense: Index of the dense type.
    """
    right = (logits.argmax(-1) == text.targets).float()
    own = (text.kinds == dense).float()
    return {
        "general_accuracy": (right * (1 - own)).sum() / (1 - own).sum().clamp_min(1),
        "read_accuracy": (right * own).sum() / own.sum().clamp_min(1),
    }


@torch.no_grad()
def answered(
    model: VLM, visual: Callable[[Tensor], Tensor], texts: PackedTexts, *, batch: int = 32, progress=None
) -> Tensor:
    """Return which questions are answered rightly, bool (Q,), in the order in which they were packed.

    Args:
        model: In evaluation mode.
        visual: Visual tokens (B, s, D) of scenes (B,) int64.
        texts: Packed questions of all scenes.
        batch: Scenes at a time.
        progress: Called as `progress(done, total)`.
    """
    device = model.language.device
    parts = []
    for rows in torch.arange(len(texts)).split(batch):
        text = PackedBatch(*(part.to(device) for part in texts.batch(rows)))
        parts.append((model(visual(rows), text).argmax(-1) == text.targets).cpu())
        if progress is not None:
            progress(int(rows[-1]) + 1, len(texts))
    return torch.cat(parts)
