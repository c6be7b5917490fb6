"""Conditional denoisers: padding and batching change nothing, objectives are their formulas, lengths are learned."""

import pytest
import torch
import torch.nn.functional as F

from components.bases import construct, specification
from components.diffusion.losses import draw_coupled, step_weights
from components.diffusion.noise import AbsorbingNoise, UniformNoise
from components.diffusion.objectives import (
    LENGTH_WEIGHT,
    CausalObjective,
    DivergenceObjective,
    Items,
    MaskPredictObjective,
    ReparameterizedObjective,
    noise_of,
)
from components.diffusion.samplers import Routing, sample_routed
from components.diffusion.schedules import CosineSchedule, DiffusionError, Grid, LinearSchedule
from components.diffusion.sequence_denoiser import SequenceDenoiser, best_of_lengths
from components.nn.encoder_decoder import SequenceTooLong
from components.training.loop import Optimisation, fit

SIZES = {"context": 8, "width": 16, "encoder_layers": 1, "decoder_layers": 2, "heads": 2, "feed_forward": 24}


def denoiser(**changes) -> SequenceDenoiser:
    torch.manual_seed(0)
    description = specification("components.diffusion.sequence_denoiser", words=6, **{**SIZES, **changes})
    return construct(description).eval()


def items(model: SequenceDenoiser, batch: int = 5) -> Items:
    generator = torch.Generator().manual_seed(1)
    lengths = torch.randint(2, 7, (2, batch, 1), generator=generator)
    tokens = torch.randint(6, (2, batch, 7), generator=generator)
    tokens[torch.arange(7) >= lengths] = model.padding
    return Items(*tokens)


def longer(tokens: torch.Tensor, model: SequenceDenoiser) -> torch.Tensor:
    return F.pad(tokens, (0, 1), value=model.padding)


@torch.no_grad()
def test_padding_and_the_rest_of_the_batch_do_not_change_logits():
    model = denoiser()
    source, target = items(model)
    logits = model(source, target)
    present = model.present(target)
    padded = model(longer(source, model), longer(target, model))[:, :7]
    torch.testing.assert_close(padded[present], logits[present], atol=1e-5, rtol=0)
    for row in range(5):
        length = int(present[row].sum())
        alone = model(source[row : row + 1], target[row : row + 1, :length])
        torch.testing.assert_close(alone[0], logits[row, :length], atol=1e-5, rtol=0)


@torch.no_grad()
def test_a_bound_denoiser_answers_for_the_rows_and_positions_that_it_is_asked_for():
    model = denoiser()
    source, target = items(model)
    lengths = model.present(target).sum(1)
    rows, wanted = torch.tensor([1, 3]), torch.tensor([0, 8, 9])
    asked = model.bound_to(source, lengths)(target[rows], torch.ones(2), rows, wanted)
    torch.testing.assert_close(asked, model(source, target)[rows].flatten(0, 1)[wanted], atol=1e-5, rtol=0)


@torch.no_grad()
def test_decoding_is_the_same_alone_and_in_a_padded_batch():
    model = denoiser()
    source, target = items(model)
    lengths, grid = model.present(target).sum(1), Grid(LinearSchedule(), 50)

    def decode(source, lengths, width):
        tokens, generated = model.blank(lengths, width)
        return sample_routed(
            model.bound_to(source, lengths), tokens, generated, noise_of("absorbing", model), grid, 3,
            torch.Generator().manual_seed(0), routing=Routing(),
        ).tokens  # fmt: skip

    together = decode(source, lengths, 7)
    torch.testing.assert_close(decode(longer(source, model), lengths, 8)[:, :7], together)
    for row in range(5):
        alone = decode(source[row : row + 1], lengths[row : row + 1], int(lengths[row]))
        assert torch.equal(alone[0], together[row, : int(lengths[row])])


@torch.no_grad()
def test_the_causal_network_looks_back_only_and_writes_what_its_logits_say_until_the_end():
    model = denoiser(causal=True, length_head=False, ends=True)
    # Untrained, it would end everywhere or nowhere.
    for parameter in model.parameters():
        parameter.mul_(3 if parameter.dim() > 1 else 1)
    model.end.bias.fill_(1.5)
    source, target = items(model)
    changed = target.clone()
    changed[:, 4:] = (changed[:, 4:] + 1).clamp(max=5)
    both = [model(source, tokens)[:, :4] for tokens in (target, changed)]
    assert torch.equal(*both)
    written = model.continue_greedily(source, 7)
    said = (written.tokens != model.padding).sum(1)
    assert len(set(said.tolist())) > 2, "some end at once, some later and some never; choose another bias"
    for row in range(5):
        length = int(said[row])
        assert bool((written.tokens[row, length:] == model.padding).all())
        before = torch.cat([torch.tensor([model.start]), written.tokens[row, :length]])[None]
        logits = model.continued(source[row : row + 1], before)[0]
        assert logits[:length].argmax(-1).tolist() == written.tokens[row, :length].tolist()
        best = logits[:length].log_softmax(-1).max(-1).values
        torch.testing.assert_close(written.scores[row, :length], best, atol=1e-5, rtol=0)
        ended = length < 7
        assert not ended or int(logits[length].argmax()) == model.words
        assert int(written.calls[row]) == length + ended


def test_coupled_training_averages_the_losses_of_both_times():
    model = denoiser(length_head=False)
    batch = items(model)
    noise, grid = noise_of("absorbing", model), Grid(LinearSchedule(), 10)
    objective = ReparameterizedObjective(noise, grid, "linear", True, 0.0)
    loss, _ = objective(model, batch, torch.Generator().manual_seed(3))
    present = model.present(batch.target)
    drawn = draw_coupled(batch.target, grid, noise, torch.Generator().manual_seed(3), noisable=present)
    weights, total = step_weights("linear", grid), 0.0
    for view in drawn:
        nats = F.cross_entropy(
            model(batch.source, view.tokens).transpose(1, 2), batch.target.clamp(max=5), reduction="none"
        )
        noisy = (view.tokens != batch.target) & present
        total += (nats * noisy * weights[view.steps][:, None]).sum() / present.sum() / 2
    assert loss.item() == pytest.approx(total.item(), rel=1e-5)


def test_mask_predict_and_causal_losses_are_cross_entropies_of_their_tokens():
    model = denoiser(ends=True)
    batch = items(model)
    loss, parts = CausalObjective(0.0)(model, batch, torch.Generator())
    present = model.present(batch.target)
    nats = []
    for row, length in enumerate(present.sum(1).tolist()):
        words = batch.target[row, :length].tolist()
        before = torch.full((1, batch.target.shape[1] + 1), model.padding)
        before[0, : length + 1] = torch.tensor([model.start, *words])
        log = model.continued(batch.source[row : row + 1], before)[0].log_softmax(-1)
        nats += [-log[place, word] for place, word in enumerate([*words, model.words])]
    expected = torch.stack(nats).mean()
    torch.testing.assert_close(parts["token_loss"], expected)
    torch.testing.assert_close(loss, expected + LENGTH_WEIGHT * parts["length_loss"])

    seen = []
    original = model.forward

    def watching(source, target, memory=None):
        seen.append(target)
        return original(source, target, memory)

    model.forward = watching
    _, parts = MaskPredictObjective(0.0)(model, batch, torch.Generator().manual_seed(0))
    masked = seen[0] == model.mask
    assert bool(masked.any(1).all())
    assert not bool((masked & ~present).any())
    expected = F.cross_entropy(original(batch.source, seen[0])[masked], batch.target[masked])
    torch.testing.assert_close(parts["token_loss"], expected)


def test_the_divergence_is_zero_for_a_network_that_knows_and_positive_otherwise():
    model = denoiser(length_head=False)
    batch = items(model)
    objective = DivergenceObjective(noise_of("uniform", model), Grid(CosineSchedule(), 10))
    loss, _ = objective(model, batch, torch.Generator().manual_seed(0))
    assert loss.item() > 0.01

    class Knowing(SequenceDenoiser):
        def forward(self, source, target, memory=None):
            return 40.0 * F.one_hot(batch.target.clamp(max=5), 6).float()

    knowing = Knowing(words=6, length_head=False, **SIZES)
    loss, _ = objective(knowing, batch, torch.Generator().manual_seed(0))
    assert float(loss) == pytest.approx(0, abs=1e-6)


def test_noise_of_a_vocabulary_leaves_special_tokens_out():
    model = denoiser()
    uniform, mask = noise_of("uniform", model), noise_of("absorbing", model)
    assert isinstance(uniform, UniformNoise)
    assert uniform.ids.tolist() == list(range(6))
    assert isinstance(mask, AbsorbingNoise)
    assert mask.ids.tolist() == [6]
    with pytest.raises(DiffusionError, match="gaussian"):
        noise_of("gaussian", model)


def test_a_denoiser_learns_to_copy_and_how_long_the_copy_is():
    model = denoiser(width=32, dropout=0.0)

    def draw(step, generator):
        lengths = torch.randint(2, 7, (32, 1), generator=generator)
        tokens = torch.randint(6, (32, 6), generator=generator)
        tokens[torch.arange(6) >= lengths] = model.padding
        return Items(tokens, tokens)

    objective = ReparameterizedObjective(noise_of("absorbing", model), Grid(LinearSchedule(), 10), "linear", False, 0.0)
    curves = fit(model, draw, objective, Optimisation(350, 5e-3, 20, weight_decay=0.0), seed=0).frame()
    lengths = curves.filter(curves["series"] == "length_loss")["value"].to_list()
    assert lengths[-1] < 0.6 * lengths[0]
    test = draw(0, torch.Generator().manual_seed(9))
    lengths = model.present(test.target).sum(1)

    def sample(source, lengths):
        tokens, generated = model.blank(lengths, 8)
        return sample_routed(
            model.bound_to(source, lengths), tokens, generated, noise_of("absorbing", model), objective.grid, 2,
            torch.Generator().manual_seed(0), routing=Routing(),
        )  # fmt: skip

    with torch.no_grad():
        outputs = sample(test.source, lengths)
        assert float((outputs.tokens[:, :6] == test.target).all(1).double().mean()) > 0.8
        best = best_of_lengths(sample, model, test.source, 3)
    assert best.tokens.shape == (32, 8)
    # Three candidates of two steps each; one of a single token is finished after the first.
    assert set(best.calls.tolist()) <= {5, 6}
    assert float((model.present(best.tokens).sum(1) == lengths).double().mean()) > 0.5


def test_too_long_sequences_and_impossible_lengths_are_refused():
    model = denoiser()
    with pytest.raises(SequenceTooLong, match="9 tokens"):
        model.memory(torch.zeros(1, 9).long())
    memory, present = torch.zeros(1, 2, 16), torch.ones(1, 2).bool()
    with pytest.raises(DiffusionError, match="the head knows 1 to 8"):
        model.lengths.loss(memory, present, torch.tensor([9]))
    assert model.lengths.candidates(memory, present, 20).shape == (1, 8)
