"""Dropping all visual tokens inside a language model, once the text has absorbed what it needs of them.

With S, V, T the places of the start token, the visual tokens and a question, and A the attention of a layer averaged
over heads,

    a_tv = sum_{i in T, j in V} A_ij / sum_{i in T, j in S+V+T} A_ij        text to visual
    a_vt = sum_{i in V, j in T} A_ij / sum_{i in V, j in S+V+T} A_ij        visual to text; 0 where V comes before T

Where both lie below a threshold at a layer that is checked, the question sees no visual token from that layer on, this
layer included. A is recomputed for the rows that are needed and at checked layers only, so that every layer can use a
fused kernel. Positions stay what they were.

    packed texts    one mask a layer, in which each question loses the visual tokens by itself      `read`, `read_each`
    one by one      hidden states, keys and values of the tokens are gone                           `dropped_decoding`

Letters: `B` scenes, `S` = 1 + s + T tokens of a sequence (start, visual, text), `Q` questions of a scene (at most),
`M` questions of all scenes, `R` rows, `L` layers, `D` width, `C` channels of one head.

Source: Li et al. 2025 (ToDRE), section 3.3.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from components.errors import TesseraError
from components.multimodal.packed_qa import PackedBatch
from components.multimodal.vlm import VLM, Prepared
from components.nn.rotary import rotate
from components.nn.transformer import Block

Rows = Literal["all", "last"]
"""Which rows stand for the text: all tokens of a question, or its last one (cheaper)."""


class DropError(TesseraError):
    """Visual tokens cannot be dropped where it was asked."""


class Layout(NamedTuple):
    """Where the questions of packed sequences are.

    Attributes:
        visual: s.
        owner: Which question each text token belongs to, int64 (B, T), in the order of the predictions; M for padding.
        scene: Scene of each question, int64 (M,).
        last: Column of each scene's questions' last tokens in the sequence, int64 (B, Q); 0 behind the last question.
        number: Which question each of `last` belongs to, int64 (B, Q); M behind the last question.
    """

    visual: int
    owner: Tensor
    scene: Tensor
    last: Tensor
    number: Tensor

    @property
    def questions(self) -> int:
        """M."""
        return len(self.scene)


class Migration(NamedTuple):
    """Where attention goes, as shares of a question's (or the visual tokens') attention, each (M,).

    The first three sum to one. `text_to_text` is the question's attention to itself.
    """

    text_to_visual: Tensor
    text_to_text: Tensor
    text_to_system: Tensor
    visual_to_text: Tensor


@dataclass(frozen=True)
class DropRule:
    """When a question loses its visual tokens.

    Attributes:
        layers: Layers at which it is asked, from 0; dropping at L, behind the last layer, changes nothing.
        threshold: tau; infinite to drop at the first of `layers` whatever the attention.
        rows: Rows that stand for the text.
    """

    layers: tuple[int, ...]
    threshold: float = math.inf
    rows: Rows = "all"

    def fires(self, block: Block, tokens: Tensor, mask: Tensor, angles: Tensor, layout: Layout) -> Tensor:
        """Return whether each question loses its visual tokens at a layer, bool (M,)."""
        if math.isinf(self.threshold):
            return torch.ones_like(layout.scene, dtype=torch.bool)
        found = migration(block, tokens, mask, angles, layout, self.rows)
        return (found.text_to_visual < self.threshold) & (found.visual_to_text < self.threshold)


class Reading(NamedTuple):
    """What a language model made of a batch.

    Attributes:
        states: Normalised states behind the last block, (B, S, D).
        layers: Layer from which on each question saw no visual token, int64 (M,); L where it always did.
    """

    states: Tensor
    layers: Tensor


def layout_of(text: PackedBatch, visual: int) -> Layout:
    """Return the layout of packed questions behind `visual` tokens.

    Args:
        text: Packed questions, each with one prediction, at its last token.
        visual: s.
    """
    batch, length = text.tokens.shape
    scene, column = text.at // length, text.at % length
    number = torch.arange(len(scene), device=scene.device)
    segment = text.segments[scene, column]
    owners = torch.full((batch, length + 1), len(scene), device=scene.device)
    owners[scene, segment] = number
    widest = int(segment.max()) if len(scene) else 0
    last = torch.zeros(batch, widest, dtype=torch.int64, device=scene.device)
    last[scene, segment - 1] = 1 + visual + column
    return Layout(visual, owners.gather(1, text.segments), scene, last, owners[:, 1 : 1 + widest])


def attention_rows(block: Block, tokens: Tensor, rows: Tensor, *, mask: Tensor, angles: Tensor) -> Tensor:
    """Return some rows of a block's attention, averaged over heads: other rows for every sequence of a batch.

    Args:
        block: A block of the language model.
        tokens: What it reads, (B, S, D).
        rows: Queries whose rows are wanted, int64 (B, R).
        mask: Where a token may attend, bool (B, 1, S, S).
        angles: Rotary table, (2, B, 1, S, C / 2).

    Returns:
        Weights (B, R, S), rows of which sum to one.
    """
    normed = block.attention_norm(tokens)
    asked = normed.gather(1, rows[..., None].expand(-1, -1, normed.shape[-1]))
    query, key = block.attention.queries(asked), block.attention.project(normed)[0]
    turned = rows[None, :, None, :, None].expand(2, -1, 1, -1, angles.shape[-1])
    scores = rotate(query, angles.gather(3, turned)) @ rotate(key, angles).transpose(-1, -2)
    seen = mask.gather(2, rows[:, None, :, None].expand(-1, 1, -1, mask.shape[-1]))
    return (scores / math.sqrt(query.shape[-1])).masked_fill(~seen, -math.inf).softmax(-1).mean(1)


def migration(
    block: Block, tokens: Tensor, mask: Tensor, angles: Tensor, layout: Layout, rows: Rows = "all"
) -> Migration:
    """Return where the attention of every question goes in a block; see the module.

    Args:
        block: A block of the language model.
        tokens: What it reads, (B, S, D).
        mask: Where a token may attend, bool (B, 1, S, S).
        angles: Rotary table, (2, B, 1, S, C / 2).
        layout: Where the questions are.
        rows: Rows that stand for the text. With "last" the columns of T are still all of the question's.
    """
    batch, length, _ = tokens.shape
    visual, text = slice(1, 1 + layout.visual), slice(1 + layout.visual, length)
    images = torch.arange(1, 1 + layout.visual, device=tokens.device).expand(batch, -1)
    if rows == "all":
        words, owner = torch.arange(1 + layout.visual, length, device=tokens.device).expand(batch, -1), layout.owner
    else:
        words, owner = layout.last, layout.number
    weights = attention_rows(block, tokens, torch.cat([images, words], 1), mask=mask, angles=angles)
    seeing, asking = weights[:, : layout.visual], weights[:, layout.visual :]
    parts = (asking[..., visual].sum(-1), asking[..., text].sum(-1), asking[..., 0])
    sums = [_by_question(part, owner, layout.questions) for part in parts]
    total = sum(sums)
    received = seeing.sum(1)
    to_text = _by_question(received[:, text], layout.owner, layout.questions)
    others = received[:, : text.start].sum(1)[layout.scene]
    tiny = torch.finfo(tokens.dtype).tiny
    return Migration(*(part / total for part in sums), to_text / (to_text + others).clamp_min(tiny))


def migrations(model: VLM, prepared: Prepared, text: PackedBatch, rows: Rows = "all") -> list[Migration]:
    """Return where attention goes in every layer while nothing is dropped, L of them."""
    layout = layout_of(text, _visual(prepared, text))
    tokens, found = prepared.tokens, []
    for block in model.blocks:
        found.append(migration(block, tokens, prepared.mask, prepared.angles, layout, rows))
        tokens = block(tokens, prepared.mask, False, prepared.angles, None, None, None)
    return found


def read(model: VLM, prepared: Prepared, text: PackedBatch, rule: DropRule) -> Reading:
    """Read packed questions, each of which loses the visual tokens where the rule fires for it.

    Raises:
        DropError: The rule names a layer that the model does not have.
    """
    check_layers(rule, len(model.blocks))
    layout = layout_of(text, _visual(prepared, text))
    tokens, mask = prepared.tokens, prepared.mask
    layers = torch.full_like(layout.scene, len(model.blocks))
    for layer, block in enumerate(model.blocks):
        if layer in rule.layers:
            fired = rule.fires(block, tokens, mask, prepared.angles, layout) & (layers > layer)
            layers = torch.where(fired, layer, layers)
            mask = _unseen(prepared.mask, layout, layers <= layer)
        tokens = block(tokens, mask, False, prepared.angles, None, None, None)
    return Reading(model.language.transformer.norm(tokens), layers)


def read_each(model: VLM, prepared: Prepared, text: PackedBatch) -> list[Tensor]:
    """Return the normalised states (B, S, D) when all questions lose the visual tokens at layer 0, 1, ..., L.

    The layers before the drop are run once for all of them.
    """
    layout = layout_of(text, _visual(prepared, text))
    mask = _unseen(prepared.mask, layout, torch.ones_like(layout.scene, dtype=torch.bool))
    tokens, found = prepared.tokens, []
    for layer, block in enumerate(model.blocks):
        left = tokens
        for later in list(model.blocks)[layer:]:
            left = later(left, mask, False, prepared.angles, None, None, None)
        found.append(model.language.transformer.norm(left))
        tokens = block(tokens, prepared.mask, False, prepared.angles, None, None, None)
    return [*found, model.language.transformer.norm(tokens)]


def check_layers(rule: DropRule, layers: int) -> None:
    """Check that a rule fits a model of L layers.

    Raises:
        DropError: It asks at a layer that does not exist, or at none.
    """
    wrong = [layer for layer in rule.layers if not 0 <= layer <= layers]
    if wrong or not rule.layers:
        raise DropError(f"layers is {list(rule.layers)}; expected some of 0 to {layers} of a model of {layers} layers.")


def _visual(prepared: Prepared, text: PackedBatch) -> int:
    return prepared.tokens.shape[1] - 1 - text.tokens.shape[1]


def _unseen(mask: Tensor, layout: Layout, dropped: Tensor) -> Tensor:
    """Return a mask in which the questions (M,) that dropped them see no visual token."""
    gone = F.pad(dropped, (0, 1))[layout.owner]
    start = 1 + layout.visual
    kept = mask[:, :, start:, 1:start] & ~gone[:, None, :, None]
    below = torch.cat([mask[:, :, start:, :1], kept, mask[:, :, start:, start:]], 3)
    return torch.cat([mask[:, :, :start], below], 2)


def _by_question(values: Tensor, owner: Tensor, questions: int) -> Tensor:
    """Sum values (B, R) over what belongs to each question; owner (B, R) is M where it belongs to none."""
    sums = values.new_zeros(questions + 1)
    return sums.index_add(0, owner.flatten(), values.flatten())[:questions]
