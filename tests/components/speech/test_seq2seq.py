"""Sequence to sequence: beams against every sequence, padding, and guided attention by hand."""

import itertools

import pytest
import torch

from components.speech.seq2seq import IGNORED, Seq2Seq, Seq2SeqError, guided_attention_loss, padded_tokens, sinusoids


def small(**source) -> Seq2Seq:
    torch.manual_seed(0)
    sizes = {"width": 16, "encoder_layers": 1, "decoder_layers": 2, "heads": 2, "feed_forward": 32}
    return Seq2Seq(targets=2, **sizes, **(source or {"source_tokens": 5})).eval()


@torch.no_grad()
def log_probability(model, source, lengths, tokens) -> float:
    target = torch.tensor([tokens], dtype=torch.int64).reshape(1, -1)
    law = model(source, lengths, target).log_softmax(-1)[0]
    return float(law[range(len(tokens) + 1), [*tokens, model.end]].sum())


@pytest.mark.parametrize("seed", range(8))
def test_the_score_of_a_narrow_beam_is_that_of_its_sequence(seed):
    model, longest = small(), 6
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.data += 0.6 * torch.randn(parameter.shape, generator=generator)
    sources, lengths = padded_tokens([[1, 2, 3], [4, 0]])
    for beams in (2, 3):
        found, scores = model.beam(sources, lengths, longest, beams=beams)
        for row in range(2):
            expected = log_probability(
                model, sources[row : row + 1, : lengths[row]], lengths[row : row + 1], found[row]
            )
            assert float(scores[row]) == pytest.approx(expected, abs=1e-4)


def test_a_wide_beam_finds_the_best_of_all_sequences_and_greedy_the_likeliest_steps():
    model, longest = small(), 3
    model.output.weight.data *= 4
    sources, lengths = padded_tokens([[1, 2, 3], [4, 0]])
    found, scores = model.beam(sources, lengths, longest, beams=40)
    greedy = model.greedy(sources, lengths, longest)
    for row in range(2):
        source, length = sources[row : row + 1, : lengths[row]], lengths[row : row + 1]
        law = {
            tokens: log_probability(model, source, length, list(tokens))
            for count in range(longest + 1)
            for tokens in itertools.product(range(2), repeat=count)
        }
        assert tuple(found[row]) == max(law, key=law.get)
        assert float(scores[row]) == pytest.approx(max(law.values()), abs=1e-4)
        written = []
        with torch.no_grad():
            while len(written) < longest:
                step = model(source, length, torch.tensor([written], dtype=torch.int64).reshape(1, -1))[0, -1]
                if int(step.argmax()) == model.end:
                    break
                written.append(int(step.argmax()))
        assert greedy[row] == written


@torch.no_grad()
def test_padding_of_source_and_target_changes_no_logit():
    model = small(source_channels=3, stack=2)
    frames, lengths = torch.randn(2, 9, 3), torch.tensor([9, 5])
    target = torch.tensor([[0, 1, 1], [1, 0, 0]])
    together = model(frames, lengths, target)
    alone = model(frames[1:, :5], lengths[1:], target[1:, :1])
    torch.testing.assert_close(together[1, :2], alone[0], atol=1e-5, rtol=1e-5)


def test_the_loss_counts_tokens_and_the_end_and_nothing_behind():
    model = small()
    source, lengths = padded_tokens([[1, 2], [3]])
    target, counts = torch.tensor([[0, 1], [1, 0]]), torch.tensor([2, 1])
    loss, charge = model.loss(source, lengths, target, counts, smoothing=0.0)
    expected = [
        log_probability(model, source[:1], lengths[:1], [0, 1]),
        log_probability(model, source[1:, :1], lengths[1:], [1]),
    ]
    assert float(loss) == pytest.approx(-sum(expected) / 5, abs=1e-5)
    assert float(charge) == 0
    assert model._labels(target, counts).tolist() == [[0, 1, 2], [1, 2, IGNORED]]


@torch.no_grad()
def test_a_share_of_the_label_is_spread_evenly_over_all_tokens():
    model = small()
    source, lengths = padded_tokens([[1, 2, 3]])
    target = torch.tensor([[1, 0]])
    law = model(source, lengths, target).log_softmax(-1)[0]
    own = -law[[0, 1, 2], [1, 0, model.end]].mean()
    loss, charge = model.loss(source, lengths, target, torch.tensor([2]), smoothing=0.3)
    torch.testing.assert_close(loss, 0.7 * own - 0.3 * law.mean())
    assert charge == 0


def test_guided_attention_charges_what_is_far_from_the_diagonal():
    present = torch.ones(1, 4, dtype=torch.bool)
    eye = 50 * torch.eye(4)[None, None].expand(1, 2, -1, -1)
    on, off = (guided_attention_loss(eye, keys, present, present, 0.2) for keys in (eye, eye.flip(2)))
    assert float(on) == pytest.approx(0, abs=1e-6)
    distances = torch.tensor([3, 1, 1, 3]) / 4
    assert float(off) == pytest.approx(float((1 - torch.exp(-distances.square() / 0.08)).mean()), rel=1e-4)
    half = torch.cat([eye[:, :1], eye.flip(2)[:, :1]], 1)
    assert float(guided_attention_loss(eye, half, present, present, 0.2)) == pytest.approx(0, abs=1e-6)


def test_guided_attention_reaches_the_last_layer_in_training():
    model = small().train()
    source, lengths = padded_tokens([[1, 2, 3, 4]])
    _, charge = model.loss(source, lengths, torch.tensor([[0, 1, 0]]), torch.tensor([3]), guided=0.15)
    charge.backward()
    assert float(charge) > 0
    assert model.decoder.blocks[-1].cross_attention.query.weight.grad.any()
    assert model.output.weight.grad is None


def test_positions_do_not_depend_on_how_many_are_asked_for_and_sources_are_one_kind():
    cpu = torch.device("cpu")
    torch.testing.assert_close(sinusoids(5, 8, 2, cpu), sinusoids(9, 8, 0, cpu)[2:7])
    with pytest.raises(Seq2SeqError, match="exactly one"):
        Seq2Seq(targets=2)
