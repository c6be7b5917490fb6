"""Channel-split quantization: groups of channels, each quantized by itself with the same kind of quantizer.

A token grid is pooled and its latents widened by the same factor, so that G groups per site give as many codes as one
code per site did before; the split is only this module's part of it. For a quantizer that treats dimensions one by one
(FSQ) the split changes no value, for one with a codebook or an entropy loss over whole codes it does.

Source: Argaw et al. 2025 (MambaVideo), section 3.
"""

from __future__ import annotations

import copy

from components.quantizers.pq import ProductQuantizer
from components.quantizers.quantized import QuantizerError, QuantizerModule


class ChannelSplitQuantizer(ProductQuantizer):
    """G groups of channels in order, every one with its own copy of a quantizer.

    Args:
        base: Quantizer of one group; D is G times its width. Copies are equal at the start: where codes are learnt,
            `start_from` and the groups' different vectors tell them apart.
        groups: G; with 1 the result is that of `base`, its indices with an axis of length 1.
    """

    def __init__(self, base: QuantizerModule, groups: int) -> None:
        if groups < 1:
            raise QuantizerError(f"ChannelSplitQuantizer(groups={groups}): expected at least 1 group.")
        super().__init__([base, *(copy.deepcopy(base) for _ in range(groups - 1))])


# A study names this module in its parameters and calls `build` with those of its fields that the signature names.
build = ChannelSplitQuantizer
