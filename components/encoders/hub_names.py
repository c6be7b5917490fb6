"""The tensors of a BertModel: their names on the Hub, and those of SentenceEncoder.

The Hub keeps queries, keys and values apart; here they are one matrix, computed at once.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

_EMBEDDINGS = {
    "word.weight": "word_embeddings.weight",
    "position.weight": "position_embeddings.weight",
    "segment.weight": "token_type_embeddings.weight",
    "norm.weight": "LayerNorm.weight",
    "norm.bias": "LayerNorm.bias",
}
_LAYER = {
    "attention_output": "attention.output.dense",
    "attention_norm": "attention.output.LayerNorm",
    "mlp_input": "intermediate.dense",
    "mlp_output": "output.dense",
    "mlp_norm": "output.LayerNorm",
}
_PROJECTIONS = ("query", "key", "value")
# The Hub's file holds more: places as a buffer, and a layer behind the first token that a mean over tokens ignores.
_UNUSED = frozenset({"embeddings.position_ids", "pooler.dense.weight", "pooler.dense.bias"})


def from_hub(tensors: Mapping[str, Tensor], layers: int) -> dict[str, Tensor]:
    """Return a state of SentenceEncoder.

    Args:
        tensors: By their names on the Hub.
        layers: Number of layers.

    Raises:
        KeyError: A tensor is missing, or one is there that no layer has.
    """
    left = dict(tensors)
    state = {f"embeddings.{ours}": left.pop(f"embeddings.{theirs}") for ours, theirs in _EMBEDDINGS.items()}
    for layer in range(layers):
        source, target = f"encoder.layer.{layer}", f"layers.{layer}"
        for kind in ("weight", "bias"):
            parts = [left.pop(f"{source}.attention.self.{name}.{kind}") for name in _PROJECTIONS]
            state[f"{target}.query_key_value.{kind}"] = torch.cat(parts)
            state |= {
                f"{target}.{ours}.{kind}": left.pop(f"{source}.{theirs}.{kind}") for ours, theirs in _LAYER.items()
            }
    if strangers := sorted(set(left) - _UNUSED):
        raise KeyError(f"{strangers[0]} belongs to no layer of {layers}")
    return state


def to_hub(state: Mapping[str, Tensor], layers: int) -> dict[str, Tensor]:
    """Return a state of SentenceEncoder under the names of the Hub; the inverse of `from_hub`."""
    tensors = {f"embeddings.{theirs}": state[f"embeddings.{ours}"] for ours, theirs in _EMBEDDINGS.items()}
    for layer in range(layers):
        target, source = f"encoder.layer.{layer}", f"layers.{layer}"
        for kind in ("weight", "bias"):
            parts = state[f"{source}.query_key_value.{kind}"].chunk(3)
            tensors |= {
                f"{target}.attention.self.{name}.{kind}": part.clone()
                for name, part in zip(_PROJECTIONS, parts, strict=True)
            }
            tensors |= {
                f"{target}.{theirs}.{kind}": state[f"{source}.{ours}.{kind}"] for ours, theirs in _LAYER.items()
            }
    return tensors
