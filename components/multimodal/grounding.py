"""Grounding: small heads on the language model's states at visual tokens say what each patch shows.

Small vision-language models trained from scratch answer without looking at the picture for a long time. A loss at the
visual positions makes the language model carry what a cell shows from the first step on; the heads are dropped after
training.

Letters: `B` pictures, `P` patches, `s` visual tokens at the finest scale, `D` width.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from components.multimodal.contrastive import PatchHeads
from components.multimodal.vlm import VLM


class Grounded(nn.Module):
    """A vision-language model with grounding heads beside it, for training.

    Args:
        model: The model.
        label_sizes: Classes of each of `patch_labels.ATTRIBUTES`.
    """

    def __init__(self, model: VLM, label_sizes: Sequence[int]) -> None:
        super().__init__()
        self.model = model
        self.heads = PatchHeads(model.language.config.width, label_sizes, model.merge**2)

    def loss(self, states: Tensor, labels: Tensor) -> Tensor:
        """Return the heads' cross-entropy in nats per patch, summed over attributes.

        Args:
            states: States (B, 1 + s + T, D) behind the last block, s = rows^2.
            labels: Class of every attribute for every patch, int64 (B, P, attributes).
        """
        visual = states[:, 1 : 1 + self.model.rows**2]
        # A cell's patches in the order in which their features are joined.
        return self.heads.loss(visual, self.model.cells(labels).unflatten(-1, (self.model.merge**2, -1)))
