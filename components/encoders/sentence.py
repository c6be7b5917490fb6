"""A sentence encoder: word pieces, BERT, mean over tokens, unit length; weights and tokenizer in the Hub's layout.

    config.json               sizes of a BertModel
    model.safetensors         its weights, by the names of the Hub
    tokenizer.json            word pieces, in the form of the `tokenizers` library
    1_Pooling/config.json     that tokens are averaged

The files lie in a directory, or as rows of the table `model_files.parquet` of a data set (components.data.model_files).

Letters: N texts, B of a batch, S positions of the longest, D width, H heads, L layers.

Source: Reimers and Gurevych 2019, "Sentence-BERT", section 3; all-MiniLM-L6-v2: the sentence-transformers project.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, overload

import numpy as np
import safetensors
import safetensors.torch
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor, nn

from components.data import model_files
from components.encoders import hub_names
from components.errors import TesseraError
from components.nn.bert import BertConfig, BertEmbeddings, BertLayer
from components.training import atomic
from components.training.weights import write_tensors

CONFIG, WEIGHTS, TOKENIZER, POOLING = "config.json", "model.safetensors", "tokenizer.json", "1_Pooling/config.json"
FILES = (CONFIG, WEIGHTS, TOKENIZER, POOLING)
MAX_LENGTH = 256
_BATCH = 64
_EXPECTED = {"model_type": "bert", "hidden_act": "gelu", "position_embedding_type": "absolute"}


class SentenceEncoderError(TesseraError):
    """Files that are no sentence encoder of this kind, or a call that has no meaning."""


class Tokens(NamedTuple):
    """Padded word pieces.

    Attributes:
        ids: Token ids, (B, S) int64, zeros of padding behind each text.
        mask: True at tokens, (B, S) bool.
    """

    ids: Tensor
    mask: Tensor


class SentenceEncoder(nn.Module):
    """Texts to vectors: mean over the last layer's tokens, scaled to unit length.

    Args:
        config: Sizes of the BERT.
        tokenizer: Adds the tokens at both ends of a text; its own padding and truncation are switched off.
    """

    def __init__(self, config: BertConfig, tokenizer: Tokenizer) -> None:
        super().__init__()
        tokenizer.no_padding()
        tokenizer.no_truncation()
        self.config = config
        self.tokenizer = tokenizer
        self.embeddings = BertEmbeddings(config)
        self.layers = nn.ModuleList(BertLayer(config) for _ in range(config.layers))

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return self.embeddings.word.weight.device

    def token_ids(self, texts: Sequence[str], max_length: int = MAX_LENGTH) -> list[list[int]]:
        """Return the token ids of each text, those at both ends included; longer texts lose their last tokens.

        Args:
            texts: Any number of texts. A special token's name in a text, such as "[CLS]", is read as that token.
            max_length: Most tokens of a text, the two at its ends included.
        """
        rows = [encoding.ids for encoding in self.tokenizer.encode_batch_fast(list(texts))]
        return [row if len(row) <= max_length else [*row[: max_length - 1], row[-1]] for row in rows]

    def tokenize(self, texts: Sequence[str], max_length: int = MAX_LENGTH) -> Tokens:
        """Return the tokens of a batch of texts, padded to the longest, on the encoder's device."""
        return padded(self.token_ids(texts, max_length), self.device)

    def embed_tokens(self, ids: Tensor) -> Tensor:
        """Return the normalised sums of embeddings (B, S, D) that the first layer reads."""
        return self.embeddings(ids)

    @overload
    def layers_from(
        self, hidden: Tensor, mask: Tensor | None, start: int = ..., stop: int | None = ..., *, plain: bool = ...
    ) -> Tensor: ...

    @overload
    def layers_from(
        self, hidden: Tensor, mask: Tensor | None, start: int = ..., stop: int | None = ..., *,
        attentions: Literal[True], plain: bool = ...,
    ) -> tuple[Tensor, tuple[Tensor, ...]]: ...  # fmt: skip

    def layers_from(
        self,
        hidden: Tensor,
        mask: Tensor | None,
        start: int = 0,
        stop: int | None = None,
        *,
        attentions: bool = False,
        plain: bool = False,
    ):
        """Run the layers `start` to `stop - 1`.

        Args:
            hidden: What layer `start` reads, (B, S, D).
            mask: True at tokens, (B, S); None where nothing is padded.
            start: First layer, 0-based.
            stop: The layer behind the last one; all that follow by default.
            attentions: Return the attention maps too.
            plain: Attention as plain arithmetic, for forward-mode derivatives.

        Returns:
            The last layer's output (B, S, D), and with `attentions` one map (B, H, S, S) of each layer.
        """
        maps = []
        for layer in self.layers[start:stop]:
            hidden, attention = layer(hidden, mask, plain=plain or attentions)
            maps.append(attention)
        return (hidden, tuple(maps)) if attentions else hidden

    def pool(self, hidden: Tensor, mask: Tensor | None) -> Tensor:
        """Return the mean over tokens (B, D), padding left out; not scaled to unit length."""
        if mask is None:
            return hidden.mean(1)
        weights = mask.to(hidden.dtype)
        return (hidden * weights[..., None]).sum(1) / weights.sum(1, keepdim=True)

    def forward(self, ids: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the vectors (B, D) of unit length of tokens (B, S)."""
        return F.normalize(self.pool(self.layers_from(self.embed_tokens(ids), mask), mask), dim=-1)

    def encode(
        self,
        texts: Sequence[str],
        batch_size: int = _BATCH,
        *,
        max_length: int = MAX_LENGTH,
    ) -> Tensor:
        """Return the vectors (N, D) of unit length of texts, in their order.

        Args:
            texts: Any number of texts.
            batch_size: Texts of a batch. Batches are made of texts of about equal length, so that little is padded.
            max_length: Most tokens of a text.
        """
        return self.encode_ids(self.token_ids(texts, max_length), batch_size)

    @torch.inference_mode()
    def encode_ids(self, rows: Sequence[Sequence[int]], batch_size: int = _BATCH) -> Tensor:
        """Return the vectors (N, D) of texts given by their token ids, as `encode` does."""
        order, parts = [], []
        for places, tokens in length_sorted_batches(rows, batch_size):
            ids = tokens.ids.to(self.device, non_blocking=True)
            mask = None if bool(tokens.mask.all()) else tokens.mask.to(self.device, non_blocking=True)
            parts.append(self(ids, mask))
            order.append(places)
        if not parts:
            return torch.empty(0, self.config.width, device=self.device)
        vectors = torch.cat(parts)
        restored = torch.empty_like(vectors)
        restored[torch.from_numpy(np.concatenate(order)).to(self.device)] = vectors
        return restored


def padded(rows: Sequence[Sequence[int]], device: torch.device | str = "cpu") -> Tokens:
    """Return token ids of different lengths as one batch."""
    lengths = np.fromiter(map(len, rows), np.int64, len(rows))
    mask = np.arange(lengths.max(initial=0)) < lengths[:, None]
    ids = np.zeros(mask.shape, np.int64)
    ids[mask] = np.fromiter((each for row in rows for each in row), np.int64, int(lengths.sum()))
    return Tokens(torch.from_numpy(ids).to(device), torch.from_numpy(mask).to(device))


def length_sorted_batches(rows: Sequence[Sequence[int]], batch_size: int) -> Iterator[tuple[np.ndarray, Tokens]]:
    """Yield batches of texts of about equal length, longest last, with their places in `rows`.

    A batch ends where it is full, or half full and the next text is longer: many texts of few lengths are not padded.

    Raises:
        SentenceEncoderError: `batch_size` is below 1.
    """
    if batch_size < 1:
        raise SentenceEncoderError(f"batch_size is {batch_size}; expected at least 1.")
    lengths = np.fromiter(map(len, rows), np.int64, len(rows))
    order = np.argsort(lengths, kind="stable")
    lengths = lengths[order]
    first = 0
    while first < len(order):
        last = min(first + batch_size, len(order))
        change = int(np.searchsorted(lengths, lengths[last - 1]))
        if change - first >= batch_size / 2:
            last = change
        places = order[first:last]
        yield places, padded([rows[place] for place in places])
        first = last


def load_sentence_encoder(directory: Path) -> SentenceEncoder:
    """Read a sentence encoder from a directory in the Hub's layout or from a data set of model files.

    The encoder is in evaluation mode on the CPU and its weights take no gradients.

    Raises:
        SentenceEncoderError: A file is missing or damaged, or describes another kind of encoder.
    """
    directory = Path(directory)
    contents = model_files.read(directory, FILES)
    described = _json(contents[CONFIG], directory / CONFIG)
    _check(described, _json(contents[POOLING], directory / POOLING), directory)
    config = BertConfig(
        vocabulary_size=described["vocab_size"],
        width=described["hidden_size"],
        layers=described["num_hidden_layers"],
        heads=described["num_attention_heads"],
        mlp=described["intermediate_size"],
        positions=described["max_position_embeddings"],
        types=described["type_vocab_size"],
        epsilon=described["layer_norm_eps"],
    )
    tokenizer = _tokenizer(contents[TOKENIZER], directory)
    if tokenizer.get_vocab_size() != config.vocabulary_size:
        raise SentenceEncoderError(
            f"{directory}: {TOKENIZER} has {tokenizer.get_vocab_size()} tokens, {CONFIG} says "
            f"{config.vocabulary_size}; the files do not belong together."
        )
    with torch.device("meta"):
        encoder = SentenceEncoder(config, tokenizer)
    try:
        tensors = safetensors.torch.load(contents[WEIGHTS])
        encoder.load_state_dict(hub_names.from_hub(tensors, config.layers), assign=True)
    except (safetensors.SafetensorError, KeyError, RuntimeError) as error:
        raise SentenceEncoderError(f"{directory}: {WEIGHTS} does not hold the tensors of {CONFIG}: {error}.") from error
    return encoder.eval().requires_grad_(False)


def save_sentence_encoder(directory: Path, encoder: SentenceEncoder) -> None:
    """Write an encoder in the Hub's layout into an existing directory, so that `load_sentence_encoder` reads it."""
    config = encoder.config
    described = _EXPECTED | {
        "vocab_size": config.vocabulary_size,
        "hidden_size": config.width,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "intermediate_size": config.mlp,
        "max_position_embeddings": config.positions,
        "type_vocab_size": config.types,
        "layer_norm_eps": config.epsilon,
    }
    write_tensors(hub_names.to_hub(encoder.state_dict(), config.layers), directory / WEIGHTS)
    (directory / POOLING).parent.mkdir(exist_ok=True)
    texts = {
        CONFIG: json.dumps(described, indent=2),
        POOLING: json.dumps({"pooling_mode_mean_tokens": True}),
        TOKENIZER: encoder.tokenizer.to_str(),
    }
    for name, text in texts.items():
        with atomic.replacing(directory / name) as temporary:
            Path(temporary).write_text(text + "\n", encoding="utf-8")


def _tokenizer(content: bytes, directory: Path) -> Tokenizer:
    try:
        return Tokenizer.from_buffer(content)
    except Exception as error:  # the library raises nothing narrower
        raise SentenceEncoderError(
            f"{directory}/{TOKENIZER} is no tokenizer ({error}). Obtain the model again."
        ) from error


def _json(content: bytes, path: Path) -> dict[str, Any]:
    try:
        return json.loads(content)
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise SentenceEncoderError(f"{path} is not JSON ({error}). Obtain the model again.") from error


def _check(described: Mapping[str, Any], pooling: Mapping[str, Any], directory: Path) -> None:
    for key, value in _EXPECTED.items():
        if (given := described.get(key, value)) != value:
            raise SentenceEncoderError(f"{directory}/{CONFIG}: {key} is {given!r}; only {value!r} is computed here.")
    chosen = [key for key, value in pooling.items() if key.startswith("pooling_mode_") and value]
    if chosen != ["pooling_mode_mean_tokens"]:
        raise SentenceEncoderError(f"{directory}/{POOLING}: pools by {chosen}; only the mean over tokens is computed.")
