"""The encoder-decoder: what is tied, what sees what, and its size."""

import pytest
import torch

from components.nn.encoder_decoder import EncoderDecoder, SequenceTooLong, build

SIZES = {"words": 5, "special": 3, "context": 6, "width": 12, "encoder_layers": 1, "decoder_layers": 1, "heads": 2}


def network(**changes) -> EncoderDecoder:
    torch.manual_seed(0)
    return build(**{**SIZES, "feed_forward": 20, **changes}).eval()


def inputs(length: int = 4):
    generator = torch.Generator().manual_seed(1)
    source, target = torch.randint(8, (2, 3, length), generator=generator)
    present = torch.ones(3, length, dtype=torch.bool)
    return source, present, target, present


def test_logits_are_products_with_the_embeddings_of_words():
    net = network()
    hidden = torch.randn(2, 12)
    expected = hidden @ net.embedding.weight[:5].T + net.output_bias
    torch.testing.assert_close(net.logits(hidden), expected)
    assert net(*inputs()).shape == (3, 4, 5)


def test_the_target_sees_the_source_and_both_of_its_own_sides():
    net, (source, present, target, _) = network(), inputs()
    before = net(source, present, target, present)
    changed = source.clone()
    changed[:, 2] = (changed[:, 2] + 1) % 8
    assert bool(((net(changed, present, target, present) - before).abs().amax((1, 2)) > 1e-6).all())
    changed = target.clone()
    changed[:, 3] = (changed[:, 3] + 1) % 8
    assert bool(((net(source, present, changed, present) - before)[:, 0].abs().amax(1) > 1e-6).all())


@torch.no_grad()
def test_hidden_tokens_change_nothing():
    net, (source, present, target, _) = network(), inputs()
    shown = present.clone()
    shown[:, 3] = False
    before = net(source, shown, target, shown)
    for side in (source, target):
        side[:, 3] = (side[:, 3] + 1) % 8
    assert torch.equal(net(source, shown, target, shown)[:, :3], before[:, :3])


def test_the_papers_network_builds_without_memory_at_its_size():
    with torch.device("meta"):
        net = network(
            words=10_000, context=256, width=512, encoder_layers=6, decoder_layers=6, heads=4, feed_forward=1024
        )
    assert sum(parameter.numel() for parameter in net.parameters()) == pytest.approx(37e6, rel=0.05)


def test_longer_sequences_than_positions_are_refused():
    with pytest.raises(SequenceTooLong, match="7 tokens were given to a network of 6"):
        network()(*inputs(7))
