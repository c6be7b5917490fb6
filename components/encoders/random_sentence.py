"""Sentence encoders with drawn weights: stand-ins for trained ones, and what a network of a shape gives untrained."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from torch import nn

from components.encoders.sentence import SentenceEncoder
from components.nn.bert import BertConfig
from components.training.determinism import derive_seed

SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_WEIGHTS = 0  # random stream


def word_piece_tokenizer(pieces: Sequence[str]) -> Tokenizer:
    """Return an uncased tokenizer of BERT with a given vocabulary.

    Args:
        pieces: Words, and "##"-pieces that go on within one; the special tokens are put in front.
    """
    vocabulary = {piece: place for place, piece in enumerate([*SPECIALS, *pieces])}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.add_special_tokens(list(SPECIALS))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[(name, vocabulary[name]) for name in ("[CLS]", "[SEP]")]
    )
    tokenizer.decoder = decoders.WordPiece(prefix="##")
    return tokenizer


def random_sentence_encoder(
    pieces: Sequence[str], *, width: int = 32, layers: int = 2, heads: int = 4, positions: int = 64, seed: int = 0
) -> SentenceEncoder:
    """Return a sentence encoder with drawn weights, in evaluation mode, its weights without gradients.

    Args:
        pieces: Vocabulary without the special tokens.
        width: D.
        layers: L.
        heads: H.
        positions: Most tokens of a text.
        seed: Of the weights.
    """
    tokenizer = word_piece_tokenizer(pieces)
    config = BertConfig(tokenizer.get_vocab_size(), width, layers, heads, 2 * width, positions)
    encoder = SentenceEncoder(config, tokenizer)
    redraw(encoder, seed, scale=width**-0.5)
    return encoder.eval().requires_grad_(False)


@torch.no_grad()
def redraw(module: nn.Module, seed: int, *, scale: float = 0.02) -> None:
    """Draw the weights of all layers in a module anew: matrices N(0, scale^2), biases 0, LayerNorm the identity.

    With its default the initialisation of BERT; for `encoder.layers` it leaves the embeddings as they are.

    Args:
        module: Changed in place.
        seed: Of the draw.
        scale: Standard deviation.
    """
    generator = torch.Generator().manual_seed(derive_seed(seed, _WEIGHTS))
    for part in module.modules():
        if isinstance(part, nn.LayerNorm):
            part.reset_parameters()
        elif isinstance(part, nn.Linear | nn.Embedding):
            drawn = scale * torch.randn(part.weight.shape, generator=generator)
            part.weight.copy_(drawn)
            if isinstance(part, nn.Linear):
                part.bias.zero_()
