"""The path of a sentence encoder: its references, its layers, and what its ends embed to."""

from __future__ import annotations

import pytest
import torch
from tokenizers import Tokenizer, models

from components.analysis.attribution import (
    AttributionError,
    Quadrature,
    contributions,
    corrected_similarity,
    cosine_scale,
    pair_matrix,
)
from components.analysis.attribution_path import EncoderPath, reference_ids, special_ids
from components.encoders.random_sentence import random_sentence_encoder
from components.encoders.sentence import SentenceEncoder

PIECES = list("abcdefgh")
PAD, CLS, SEP = 0, 2, 3


def tiny_encoder() -> SentenceEncoder:
    return random_sentence_encoder(PIECES, width=12, layers=3, heads=3)


def test_a_reference_is_first_token_paddings_and_last_token_of_the_same_length():
    encoder = tiny_encoder()
    assert special_ids(encoder) == (CLS, SEP, PAD)
    ids = EncoderPath(encoder, 1).reference_ids(torch.tensor([2, 5, 3]))
    assert ids.tolist() == [[2, 3, 0, 0, 0], [2, 0, 0, 0, 3], [2, 0, 3, 0, 0]]
    assert reference_ids(torch.tensor([3]), (7, 8, 9), 4).tolist() == [[7, 9, 8, 9]]
    with pytest.raises(AttributionError, match="at least those at both ends"):
        reference_ids(torch.tensor([1]), (2, 3, 0))


def test_paddings_of_a_reference_are_attended_to():
    encoder = tiny_encoder()
    tokens = encoder.tokenize(["a b c d"])
    reference = EncoderPath(encoder, 1).ends(tokens.ids).reference
    alone = encoder.layers_from(encoder.embed_tokens(torch.tensor([[2, 0, 0, 0, 0, 3]])), None, 0, 1)
    torch.testing.assert_close(reference, alone)
    hidden = torch.tensor([[True] + [False] * 4 + [True]])
    unattended = encoder.layers_from(encoder.embed_tokens(torch.tensor([[2, 0, 0, 0, 0, 3]])), hidden, 0, 1)
    assert (reference[0, 0] - unattended[0, 0]).abs().max() > 1e-3


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_the_end_of_the_path_embeds_to_the_encoders_own_vector(layer):
    encoder = tiny_encoder()
    tokens = encoder.tokenize(["a b c d e", "f g"])
    path = EncoderPath(encoder, layer)
    ends = path.ends(*tokens)
    found = torch.nn.functional.normalize(path.embed(ends.x, tokens.mask), dim=-1)
    torch.testing.assert_close(found, encoder(*tokens), atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(found[1:], encoder.encode(["f g"]), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("layer", [1, 2])
def test_a_sentences_attributions_add_up_and_do_not_depend_on_its_batch(layer):
    encoder = tiny_encoder()
    path, rule = EncoderPath(encoder, layer), [Quadrature(50, "midpoint")]
    texts = ["a b c d e", "f g", "h a b"]
    tokens = encoder.tokenize(texts)
    ends = path.ends(*tokens)
    batched = contributions(path.embed, *ends, rule, tokens.mask)[0]
    vectors, references = path.embed(ends.x, tokens.mask), path.embed(ends.reference, tokens.mask)
    for row, text in enumerate(texts):
        ids = encoder.tokenize([text]).ids
        alone = contributions(path.embed, *path.ends(ids), rule)[0][0]
        torch.testing.assert_close(batched[row, : ids.shape[1]], alone, atol=3e-6, rtol=1e-4)
        assert (batched[row, ids.shape[1] :] == 0).all()
    both = [part[[0, 1]] for part in (vectors, references)]
    terms = (both[0][0], both[0][1], both[1][0], both[1][1])
    total = pair_matrix(batched[0], batched[1]).sum() / cosine_scale(*terms)
    assert float(total) == pytest.approx(float(corrected_similarity(*terms) / cosine_scale(*terms)), abs=2e-3)
    assert -1 <= float(total) <= 1


def test_layers_and_encoders_without_a_path_are_refused():
    encoder = tiny_encoder()
    with pytest.raises(AttributionError, match="expected one of 0 to 2"):
        EncoderPath(encoder, 3)
    with pytest.raises(AttributionError, match="training mode"):
        EncoderPath(encoder.train(), 2)
    bare = tiny_encoder()
    bare.tokenizer = Tokenizer(models.WordPiece({"a": 0, "[UNK]": 1}, unk_token="[UNK]"))
    with pytest.raises(AttributionError, match="no padding"):
        EncoderPath(bare, 2)
