import pytest
import torch

from components.analysis.attention_share import AttentionShareError, map_distance, prefix_attention, received_share
from components.encoders.random_sentence import random_sentence_encoder


def test_uniform_attention_gives_inserted_positions_their_share_of_the_text():
    inserted = torch.tensor([False, True, True, False, False])
    torch.testing.assert_close(received_share(torch.full((2, 3, 5, 5), 0.2), inserted), torch.tensor([0.4, 0.4]))
    assert received_share(torch.eye(5).expand(1, 1, 5, 5), torch.zeros(5, dtype=torch.bool)) == 0


def test_the_distance_is_taken_between_kept_positions_only():
    original = torch.rand(1, 2, 3, 3)
    inserted = torch.tensor([False, True, False, False, True])
    edited = torch.rand(1, 2, 5, 5)
    kept = [0, 2, 3]
    expected = sum((original[0, h] - edited[0, h][kept][:, kept]).norm() for h in range(2)) / 2
    torch.testing.assert_close(map_distance(original, edited, inserted)[0], expected)
    torch.testing.assert_close(map_distance(original, original, torch.zeros(3, dtype=torch.bool)), torch.zeros(1))


def test_a_text_and_its_edited_form_are_compared_layer_by_layer():
    encoder = random_sentence_encoder([*"abcd"])
    shares, distances = prefix_attention(encoder, "a b c", ["d", "[CLS]"], 4)
    assert shares.shape == distances.shape == (2, 2)
    ids, mask = encoder.tokenize(["d d d d a b c"])
    _, maps = encoder.layers_from(encoder.embed_tokens(ids), mask, attentions=True)
    torch.testing.assert_close(shares[0, 1], maps[1][0, :, :, 1:5].sum(-1).mean())
    shares, distances = prefix_attention(encoder, "a b c", ["d"], 0)
    assert (shares == 0).all()
    assert (distances == 0).all()


def test_tokens_that_are_split_and_maps_that_do_not_fit_are_refused():
    encoder = random_sentence_encoder(["a", "##b"])
    with pytest.raises(AttentionShareError, match="'ab' is not read as one token"):
        prefix_attention(encoder, "a", ["ab"], 2)
    with pytest.raises(AttentionShareError, match="do not fit"):
        received_share(torch.rand(1, 1, 3, 3), torch.zeros(4, dtype=torch.bool))
    with pytest.raises(AttentionShareError, match="3 positions are kept, the original has 2"):
        map_distance(torch.rand(1, 1, 2, 2), torch.rand(1, 1, 3, 3), torch.zeros(3, dtype=torch.bool))
