"""T5: an encoder-decoder transformer with relative position biases, as its weights on the Hugging Face Hub need it.

    source -- embed -- encoder ------------------.
                                                 | cross-attention
    start, y_1 .. y_T-1 -- embed -- decoder -----+-- norm -- D^-1/2 -- embed^T -- logits of y_1 .. y_T

It differs from components.nn.transformer in what cannot be switched off there: heads whose width is not D / H, scores
that are not scaled, a bias by distance in every score, and one table for all embeddings and the output.

Letters: B sequences, S source tokens, T target tokens, D width, H heads, C channels of a head, V vocabulary.

Source: Raffel et al. 2020, "Exploring the Limits of Transfer Learning with a Unified Text-to-Text Transformer",
section 2.1 (model), and the released checkpoints "t5-small", "t5-base", "t5-3b" (sizes).
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from components.errors import TesseraError
from components.nn.transformer import KeyValueCache
from components.training.weights import copy_tensors, read_tensors


class T5Error(TesseraError):
    """A T5 was configured, or read from files, that this module cannot build."""


@dataclass(frozen=True)
class T5Config:
    """Sizes of a T5; the defaults are those of t5-base.

    Attributes:
        vocabulary_size: V, the padding and the end token among them.
        width: D.
        layers: Blocks of the encoder, and again of the decoder.
        heads: H.
        head_width: C, free of D and H.
        hidden: Channels inside the MLP.
        buckets: Distances that have a bias of their own, near ones singly, far ones in logarithmic groups.
        furthest: Distance from which on all share the last bucket.
        start_token: Token that the decoder starts from (T5's padding token).
    """

    vocabulary_size: int = 32_128
    width: int = 768
    layers: int = 12
    heads: int = 12
    head_width: int = 64
    hidden: int = 3_072
    buckets: int = 32
    furthest: int = 128
    start_token: int = 0


def distance_buckets(distance: Tensor, buckets: int, furthest: int, both_directions: bool) -> Tensor:
    """Return the bucket of each distance (key position - query position), any shape, int64.

    With n buckets for one direction, distances 0 .. n/2 - 1 have one each; d >= n/2 falls into
    `n/2 + floor(ln(d / (n/2)) / ln(furthest / (n/2)) n/2)`, at most n - 1. Keys ahead of the query have the upper half
    of the buckets in an encoder, and distance 0 in a decoder, which never sees them.
    """
    offset = torch.zeros_like(distance)
    if both_directions:
        buckets //= 2
        offset = (distance > 0) * buckets
        distance = distance.abs()
    else:
        distance = (-distance).clamp(min=0)
    single = buckets // 2
    # In single precision, as the released weights were trained: a bound that falls on an integer may lie one off.
    ratio = (distance.float() / single).clamp(min=1).log() / math.log(furthest / single)
    far = single + (ratio * (buckets - single)).long()
    return offset + distance.where(distance < single, far.clamp(max=buckets - 1))


class _Attention(nn.Module):
    """Multi-head attention without scale and biases: softmax(q k^T + bias) v."""

    def __init__(self, config: T5Config) -> None:
        super().__init__()
        self.heads = config.heads
        inner = config.heads * config.head_width
        self.query, self.key, self.value = (nn.Linear(config.width, inner, bias=False) for _ in range(3))
        self.output = nn.Linear(inner, config.width, bias=False)
        nn.init.normal_(self.query.weight, std=(config.width * config.head_width) ** -0.5)
        for linear in (self.key, self.value):
            nn.init.normal_(linear.weight, std=config.width**-0.5)
        nn.init.normal_(self.output.weight, std=inner**-0.5)

    def split(self, projected: Tensor) -> Tensor:
        return projected.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # [B, T, H C] -> [B, H, T, C]

    def project(self, context: Tensor) -> tuple[Tensor, Tensor]:
        return self.split(self.key(context)), self.split(self.value(context))

    def forward(self, tokens: Tensor, keys: Tensor, values: Tensor, bias: Tensor) -> Tensor:
        heads = F.scaled_dot_product_attention(self.split(self.query(tokens)), keys, values, bias, scale=1.0)
        return self.output(heads.transpose(1, 2).flatten(-2))


class _Block(nn.Module):
    def __init__(self, config: T5Config, layer: int, decoder: bool) -> None:
        super().__init__()
        self.layer = layer
        self.attention_norm = nn.RMSNorm(config.width, eps=1e-6)
        self.attention = _Attention(config)
        self.cross_norm = nn.RMSNorm(config.width, eps=1e-6) if decoder else None
        self.cross_attention = _Attention(config) if decoder else None
        self.mlp_norm = nn.RMSNorm(config.width, eps=1e-6)
        self.input = nn.Linear(config.width, config.hidden, bias=False)
        self.output = nn.Linear(config.hidden, config.width, bias=False)
        nn.init.normal_(self.input.weight, std=config.width**-0.5)
        nn.init.normal_(self.output.weight, std=config.hidden**-0.5)

    def forward(
        self,
        tokens: Tensor,
        bias: Tensor,
        context: Tensor | None = None,
        context_bias: Tensor | None = None,
        cache: KeyValueCache | None = None,
    ) -> Tensor:
        normed = self.attention_norm(tokens)
        keys, values = self.attention.project(normed)
        if cache is not None:
            keys, values = cache.extend(self.layer, keys, values)
        tokens = tokens + self.attention(normed, keys, values, bias)
        if self.cross_attention is not None:
            keys, values = self._context(context, cache)
            tokens = tokens + self.cross_attention(self.cross_norm(tokens), keys, values, context_bias)
        return tokens + self.output(F.relu(self.input(self.mlp_norm(tokens))))

    def _context(self, context: Tensor, cache: KeyValueCache | None) -> tuple[Tensor, Tensor]:
        if cache is None:
            return self.cross_attention.project(context)
        if cache.context(self.layer) is None:
            cache.keep_context(self.layer, *self.cross_attention.project(context))
        return cache.context(self.layer)


class _Stack(nn.Module):
    """Encoder or decoder: blocks that share one table of position biases, and a final norm."""

    def __init__(self, config: T5Config, decoder: bool) -> None:
        super().__init__()
        self.config, self.decoder = config, decoder
        self.bias = nn.Embedding(config.buckets, config.heads)
        self.blocks = nn.ModuleList(_Block(config, layer, decoder) for layer in range(config.layers))
        self.norm = nn.RMSNorm(config.width, eps=1e-6)
        nn.init.normal_(self.bias.weight, std=config.width**-0.5)

    def position_bias(self, past: int, length: int, device: torch.device) -> Tensor:
        """Return the bias of `length` queries behind `past` tokens to all keys, [1, H, T, past + T]."""
        queries = torch.arange(past, past + length, device=device)
        distance = torch.arange(past + length, device=device) - queries[:, None]
        buckets = distance_buckets(distance, self.config.buckets, self.config.furthest, not self.decoder)
        bias = self.bias(buckets).permute(2, 0, 1)[None]
        return bias.masked_fill(distance > 0, -math.inf) if self.decoder else bias

    def forward(self, tokens: Tensor, bias: Tensor, *context) -> Tensor:
        for block in self.blocks:
            tokens = block(tokens, bias, *context)
        return self.norm(tokens)


class T5(nn.Module):
    """T5 with its original MLP (ReLU) and shared embeddings; the dropout of its pretraining is left out.

    Args:
        config: Sizes.
    """

    def __init__(self, config: T5Config) -> None:
        super().__init__()
        self.config = config
        self.vocabulary_size = config.vocabulary_size
        self.embedding = nn.Embedding(config.vocabulary_size, config.width)
        self.encoder, self.decoder = _Stack(config, decoder=False), _Stack(config, decoder=True)
        nn.init.normal_(self.embedding.weight)

    @property
    def device(self) -> torch.device:
        """Where the parameters lie."""
        return self.embedding.weight.device

    def encode(self, source: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Encode source tokens.

        Args:
            source: Ids, (B, S).
            mask: (B, S) boolean, True where there is a token.

        Returns:
            States (B, S, D), and the bias [B, 1, 1, S] that hides padding from whoever attends to them.
        """
        tokens = self.embedding(source)
        hidden = torch.zeros_like(mask, dtype=tokens.dtype).masked_fill(~mask, -math.inf)[:, None, None]
        bias = self.encoder.position_bias(0, source.shape[1], source.device) + hidden
        return self.encoder(tokens, bias.to(tokens.dtype)), hidden

    def decode(self, target: Tensor, states: Tensor, hidden: Tensor, cache: KeyValueCache | None = None) -> Tensor:
        """Return the logits of the token behind each target token, (B, T, V).

        Args:
            target: Ids, (B, T), the first one being the start token where the cache is empty.
            states: From `encode`.
            hidden: From `encode`.
            cache: Keys and values of the target tokens before; extended in place.
        """
        past = 0 if cache is None else cache.length
        bias = self.decoder.position_bias(past, target.shape[1], target.device)
        tokens = self.embedding(target)
        tokens = self.decoder(tokens, bias.to(tokens.dtype), states, hidden, cache)
        if cache is not None:
            cache.length += target.shape[1]
        return F.linear(tokens * self.config.width**-0.5, self.embedding.weight)

    def forward(self, source: Tensor, mask: Tensor, labels: Tensor) -> Tensor:
        """Return the logits of the labels, (B, T, V).

        Args:
            source: Ids, (B, S).
            mask: (B, S) boolean, True where there is a token.
            labels: Ids, (B, T); negative ones stand behind the end and are read as the start token.
        """
        target = F.pad(labels[:, :-1].clamp(min=0), (1, 0), value=self.config.start_token)
        return self.decode(target, *self.encode(source, mask))


def read_hub(directory: Path) -> T5:
    """Read a T5 v1.0 as it lies on the Hugging Face Hub: `config.json` and `model.safetensors`.

    Raises:
        T5Error: The files are missing or describe another kind of model.
        WeightsMismatch: The weights do not belong to the config.
    """
    path = Path(directory) / "config.json"
    try:
        found = json.loads(path.read_text())
        config = T5Config(
            found["vocab_size"], found["d_model"], found["num_layers"], found["num_heads"], found["d_kv"],
            found["d_ff"], found["relative_attention_num_buckets"], found.get("relative_attention_max_distance", 128),
            found["decoder_start_token_id"],
        )  # fmt: skip
    except (OSError, json.JSONDecodeError, KeyError) as error:
        raise T5Error(f"{path}: {error!r}. Expected the config.json of a T5 from the Hugging Face Hub.") from error
    if found.get("feed_forward_proj", "relu") != "relu" or not found.get("tie_word_embeddings", True):
        raise T5Error(f"{path}: gated MLPs and untied outputs (T5 v1.1) are not built here; expected a T5 v1.0.")
    if found.get("num_decoder_layers", config.layers) != config.layers:
        raise T5Error(f"{path}: encoder and decoder differ in their number of layers; expected a T5 v1.0.")
    model = T5(config)
    stored = read_tensors(Path(directory) / "model.safetensors")
    target = {hub_name(name): tensor for name, tensor in model.state_dict().items()}
    # Some checkpoints repeat the shared table under the names of its users.
    stored = {name: tensor for name, tensor in stored.items() if name in target or not _repeats(name)}
    copy_tensors(stored, target, str(directory), strict=True)
    return model.eval()


_HUB_PARTS = {
    "attention_norm.weight": "layer.0.layer_norm.weight",
    "attention": "layer.0.SelfAttention",
    "cross_norm.weight": "layer.1.layer_norm.weight",
    "cross_attention": "layer.1.EncDecAttention",
}
_HUB_PROJECTIONS = {"query": "q", "key": "k", "value": "v", "output": "o"}


def hub_name(name: str) -> str:
    """Return what a parameter of `T5` is called in a checkpoint of the Hub."""
    if name == "embedding.weight":
        return "shared.weight"
    stack, _, rest = name.partition(".")
    if rest == "norm.weight":
        return f"{stack}.final_layer_norm.weight"
    if rest == "bias.weight":
        return f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
    _, layer, part = rest.split(".", 2)
    last = 2 if stack == "decoder" else 1
    if part in ("input.weight", "output.weight"):
        inside = f"layer.{last}.DenseReluDense.{'wi' if part.startswith('input') else 'wo'}.weight"
    elif part == "mlp_norm.weight":
        inside = f"layer.{last}.layer_norm.weight"
    elif part in _HUB_PARTS:
        inside = _HUB_PARTS[part]
    else:
        block, projection, _ = part.split(".")
        inside = f"{_HUB_PARTS[block]}.{_HUB_PROJECTIONS[projection]}.weight"
    return f"{stack}.block.{layer}.{inside}"


def _repeats(name: str) -> bool:
    return name in ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight")
