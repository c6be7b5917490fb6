"""A vision-language model: features of a frozen encoder, a projector, and a causal language model that reads both.

    picture -- encoder, penultimate layer -- features -- merge cells -- projector -- visual tokens --+
                                                                                                     +-- causal LM
    start, text -- word embeddings ------------------------------------------------------------------+

The visual tokens stand behind the start token, in raster order, and the texts behind them (`packed_qa`). What papers on
token reduction need is open: features, visual tokens, their places and which of them are seen, the blocks of the
language model, its mask and its rotary angles.

Letters: `B` pictures, `P` patches of a picture, `F` width of the features, `s` visual tokens, `T` text tokens, `D`
width of the language model, `V` words.

Source: Liu et al. 2023 (LLaVA), section 4.1, with the two-layer GELU projector of Liu et al. 2024 (LLaVA-1.5).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from components.bases import load_model
from components.data.pixels import to_unit
from components.errors import TesseraError
from components.language.causal_lm import CausalLM
from components.multimodal.packed_qa import PackedBatch
from components.multimodal.words import WordVocabulary
from components.nn.vit import PatchViT


class VlmError(TesseraError):
    """A vision-language model was built or called in a way that has no meaning."""


class Prepared(NamedTuple):
    """What the first block of the language model reads.

    Attributes:
        tokens: Embeddings, (B, 1 + s + T, D).
        mask: Where a token may attend, bool (B, 1, 1 + s + T, 1 + s + T), the causal order included.
        angles: Rotary table of the positions, (2, B, 1, 1 + s + T, C / 2).
    """

    tokens: Tensor
    mask: Tensor
    angles: Tensor


class Projector(nn.Module):
    """Features to visual tokens: W2 gelu(W1 (f - mean) / deviation), mean and deviation those of the training features.

    Args:
        features: Width of a merged cell's features.
        width: D.
    """

    def __init__(self, features: int, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("deviation", torch.ones(features))
        self.input = nn.Linear(features, width)
        self.output = nn.Linear(width, width)

    @torch.no_grad()
    def start_from(self, cells: Tensor) -> None:
        """Take mean and deviation from features (..., F)."""
        flat = cells.flatten(0, -2).float()
        self.mean.copy_(flat.mean(0))
        self.deviation.copy_(flat.std(0).clamp_min(1e-4))

    def forward(self, cells: Tensor) -> Tensor:
        """Return visual tokens (..., D) of features (..., F)."""
        return self.output(F.gelu(self.input((cells - self.mean) / self.deviation)))


class VLM(nn.Module):
    """Projector and language model, without the encoder whose features they read; see the module.

    Args:
        language: The language model, with rotary positions.
        words: Every word by its id, without the special tokens.
        rows: Rows of the encoder's grid of patches.
        feature_width: Width of a patch's features.
        merge: Side of the square of patches whose features are joined, channel by channel, to one cell.
        encoder: Name of the base whose features it reads.
    """

    def __init__(
        self, *, language: CausalLM, words: list[str], rows: int, feature_width: int, merge: int, encoder: str
    ) -> None:
        super().__init__()
        if rows % merge:
            raise VlmError(f"merge {merge} does not divide the {rows} rows of patches; choose a divisor.")
        if language.positions is not None:
            raise VlmError("the language model has learned positions; expected rotary ones, which move with the text.")
        self.words = WordVocabulary(words)
        if len(self.words) != language.vocabulary_size:
            raise VlmError(f"{len(self.words)} words, but the language model has {language.vocabulary_size} tokens.")
        self.patch_rows, self.merge, self.encoder = rows, merge, encoder
        self.projector = Projector(feature_width * merge**2, language.config.width)
        self.language = language

    @property
    def rows(self) -> int:
        """Rows, and columns, of the finest grid of visual tokens."""
        return self.patch_rows // self.merge

    @property
    def blocks(self) -> nn.ModuleList:
        """The blocks of the language model, in order."""
        return self.language.transformer.blocks

    def cells(self, features: Tensor) -> Tensor:
        """Return features of cells (B, rows^2, F merge^2), row by row, of features of patches (B, P, F)."""
        if self.merge == 1:
            return features
        batch, _, width = features.shape
        grid = features.view(batch, self.rows, self.merge, self.rows, self.merge, width)
        return grid.transpose(2, 3).reshape(batch, self.rows**2, self.merge**2 * width)

    def visual(self, features: Tensor) -> Tensor:
        """Return the visual tokens (B, rows^2, D) of features of patches (B, P, F), of any float type."""
        return self.projector(self.cells(features).float())

    def prepare(
        self,
        visual: Tensor,
        text: PackedBatch,
        *,
        places: Tensor | None = None,
        text_place: int | None = None,
        seen: Tensor | None = None,
    ) -> Prepared:
        """Lay visual tokens and packed texts into sequences.

        Args:
            visual: Visual tokens (B, s, D); s may be 0.
            text: Packed texts of the same pictures.
            places: Positions of the visual tokens, int64 (s,) or (B, s), from 1; 1 .. s where None. Whoever drops
                tokens and keeps the places of the others gives them here.
            text_place: Position of the first token of every text; s + 1 where None.
            seen: Which visual tokens exist at all, bool (B, s); all where None. Others are seen by nothing.
        """
        batch, count, _ = visual.shape
        length = text.tokens.shape[1]
        device = visual.device
        start = torch.full((batch, 1), self.language.start_token, device=device)
        embedding = self.language.embedding
        tokens = torch.cat([embedding(start), visual.to(embedding.weight.dtype), embedding(text.tokens)], 1)
        if places is None:
            places = torch.arange(1, 1 + count, device=device)
        behind = text.places + (1 + count if text_place is None else text_place)
        positions = torch.cat([torch.zeros_like(start), places.expand(batch, count), behind], 1)
        prefix = torch.ones(batch, 1 + count, dtype=torch.bool, device=device)
        if seen is not None:
            prefix = torch.cat([prefix[:, :1], seen], 1)
        same = text.segments[:, :, None] == text.segments[:, None, :]
        same = same & (text.segments > 0)[:, None, :]
        below = torch.cat([prefix[:, None].expand(batch, length, 1 + count), same], 2)
        above = F.pad(prefix[:, None].expand(batch, 1 + count, 1 + count), (0, length))
        mask = torch.cat([above, below], 1).tril().unsqueeze(1)
        return Prepared(tokens, mask, self.language.angles[:, positions[:, None]])

    def read(self, prepared: Prepared) -> Tensor:
        """Return the normalised states (B, 1 + s + T, D) behind the last block."""
        return self.language.transformer(prepared.tokens, mask=prepared.mask, angles=prepared.angles)

    def logits(self, states: Tensor) -> Tensor:
        """Return logits (..., V) of states (..., D)."""
        language = self.language
        matrix = (
            language.embedding.weight[: language.vocabulary_size] if language.output is None else language.output.weight
        )
        return F.linear(states, matrix)

    def predicted(self, states: Tensor, text: PackedBatch) -> Tensor:
        """Return the logits (M, V) where something is predicted, of the states (B, 1 + s + T, D) of a batch."""
        length = text.tokens.shape[1]
        return self.logits(states[:, states.shape[1] - length :].flatten(0, 1)[text.at])

    def forward(self, visual: Tensor, text: PackedBatch) -> Tensor:
        """Return the logits (M, V) where something is predicted, of visual tokens (B, s, D) and packed texts."""
        return self.predicted(self.read(self.prepare(visual, text)), text)


class Seeing(NamedTuple):
    """A vision-language model with the encoder that sees for it.

    Attributes:
        model: Projector and language model.
        encoder: The encoder; its penultimate layer is read.
    """

    model: VLM
    encoder: PatchViT


@torch.no_grad()
def features_of(encoder: PatchViT, pictures: Tensor, batch: int = 64) -> Tensor:
    """Return the patch features that a vision-language model reads, fp16 (N, P, F) on the CPU.

    Args:
        encoder: In evaluation mode.
        pictures: uint8 (N, 3, H, W).
        batch: Pictures at a time.
    """
    device = encoder.positions.device
    parts = [
        encoder.hidden(to_unit(part.to(device)), encoder.layers - 1)[:, 1:].half().cpu()
        for part in pictures.split(batch)
    ]
    return torch.cat(parts)


def load_vlm(directory: Path, encoders: Path | None = None) -> Seeing:
    """Load a vision-language model and its encoder.

    Args:
        directory: Folder of the model.
        encoders: Folder that holds the encoder's folder; the one that holds `directory` where None.

    Raises:
        VlmError: The folder holds another kind of model.
        ModelDescriptionError: A folder is missing or describes no model.
    """
    model = load_model(directory)
    if not isinstance(model, VLM):
        raise VlmError(f"{directory} holds a {type(model).__name__}; expected a vision-language model.")
    seen = load_model((Path(directory).parent if encoders is None else encoders) / model.encoder)
    return Seeing(model, seen if isinstance(seen, PatchViT) else seen.encoder)


def text_batch(words: WordVocabulary, question: str) -> PackedBatch:
    """Return one question as a packed batch of one scene; its answer is to be predicted.

    Raises:
        UnknownWord: A word is not in the vocabulary.
    """
    tokens = torch.tensor([[words.question, *words.encode(question)]])
    length = tokens.shape[1]
    places = torch.arange(length)[None]
    none = torch.zeros(1, dtype=torch.int64)
    return PackedBatch(tokens, torch.ones_like(tokens), places, torch.tensor([length - 1]), none, none - 1)


@torch.no_grad()
def answer(seeing: Seeing, picture: Tensor, question: str) -> tuple[str, float]:
    """Answer a question about a picture.

    Args:
        seeing: From `load_vlm`, on the CPU.
        picture: uint8 (3, H, W) of the encoder's side.
        question: In the words of `components.data.scenes.questions`.

    Returns:
        The likeliest word and its probability.

    Raises:
        UnknownWord: The question has a word that the model never saw.
        PatchError: The picture has another side.
    """
    model, encoder = seeing
    visual = model.visual(features_of(encoder, picture[None]))
    probabilities = model(visual, text_batch(model.words, question))[0].double().softmax(-1)
    best = int(probabilities.argmax())
    return model.words.tokens[best], float(probabilities[best])


def build(**settings: Any) -> VLM:
    """Build a model from the arguments of VLM."""
    return VLM(**settings)
