import math

import pytest
import torch

from components.analysis.grammar_induction import (
    CompoundPCFG,
    WatchedGrammar,
    gain_rows,
    grammar_loss,
    grammar_shape,
    relative_gain,
    sentence_nats,
    shuffled,
    windows_of,
)
from components.analysis.grammar_inside import GrammarError, inside
from components.language.count_models import UnigramCounts
from components.training.loop import Optimisation, fit


def model(vocabulary=5, seed=0, **sizes):
    torch.manual_seed(seed)
    sizes = {"nonterminals": 2, "preterminals": 3, "latent_dim": 2, "hidden": 8, **sizes}
    return CompoundPCFG(vocabulary, **sizes)


def test_rules_are_probabilities():
    grammar = model()
    tokens = torch.arange(5).view(1, 5)
    rules = grammar.rules(tokens, torch.randn(1, 2))
    assert rules.root.exp().sum(-1).tolist() == pytest.approx([1])
    assert rules.binary.exp().sum((-2, -1)).flatten().tolist() == pytest.approx([1, 1])
    # Every token of the vocabulary once: the emissions of a preterminal sum to one.
    assert rules.leaves.exp().sum(1).flatten().tolist() == pytest.approx([1, 1, 1])


def test_the_bound_lies_below_the_log_likelihood_and_meets_it_at_the_prior():
    grammar = model().double()
    tokens = torch.tensor([[0, 1, 2, 3]])
    generator = torch.Generator().manual_seed(0)
    draws = torch.randn(4000, 2, generator=generator, dtype=torch.float64)
    many = tokens.expand(len(draws), -1)
    with torch.no_grad():
        exact = inside(grammar.rules(many, draws)).logsumexp(0) - math.log(len(draws))
        likelihood, divergence = grammar.bound(many, draws)
        assert (likelihood - divergence).mean() < exact
        for parameter in grammar.posterior.parameters():
            parameter.zero_()
        likelihood, divergence = grammar.bound(many, draws)
    assert divergence.abs().max() == 0
    assert torch.allclose(likelihood, inside(grammar.rules(many, draws)))


def test_the_divergence_is_that_of_two_gaussians():
    grammar = model()
    tokens = torch.tensor([[0, 1, 2], [4, 4, 1]])
    mean, log_variance = grammar.encode(tokens)
    expected = torch.distributions.kl_divergence(
        torch.distributions.Normal(mean, (log_variance / 2).exp()), torch.distributions.Normal(0.0, 1.0)
    ).sum(-1)
    _, divergence = grammar.bound(tokens, torch.zeros(2, 2))
    assert torch.allclose(divergence, expected, atol=1e-6)


@pytest.mark.slow
def test_a_grammar_learns_order_that_a_unigram_model_cannot_and_nothing_from_shuffled_tokens():
    generator = torch.Generator().manual_seed(0)
    opening = torch.randint(3, (400, 2), generator=generator)
    # Brackets: every opening token 0 to 2 is closed by its partner 3 to 5, in reverse order.
    sentences = torch.cat([opening, opening.flip(1) + 3], 1)
    learned, held_out = sentences[:300], sentences[300:]

    def gain(learned, held_out):
        unigram = UnigramCounts(learned.flatten(), 6)
        watched = WatchedGrammar(model(6, nonterminals=4, preterminals=6, hidden=16), held_out, unigram, 150, 150)
        fit(
            watched,
            lambda step, generator: learned[torch.randint(len(learned), (16,), generator=generator)],
            lambda watched, batch, generator: grammar_loss(watched.model, batch, generator),
            Optimisation(150, 1e-2, final_fraction=1.0, betas=(0.75, 0.999), weight_decay=0.0, gradient_clip=3.0),
            seed=0,
            after_step=lambda watched, step, generator: watched.look(step + 1),
        )
        return watched.gains.item()

    ordered = gain(learned, held_out)
    random = gain(shuffled(learned, generator), shuffled(held_out, generator))
    assert ordered > 30
    assert random < ordered - 20


def test_nats_of_sentences_do_not_depend_on_how_they_are_batched_up_to_the_draws():
    grammar = model()
    # Without a spread of the posterior every draw is the same.
    with torch.no_grad():
        grammar.posterior.bias[2:] = -60
        grammar.posterior.weight[2:] = 0
    sentences = torch.randint(5, (9, 4), generator=torch.Generator().manual_seed(1))
    one, other = (
        sentence_nats(grammar, sentences, torch.Generator().manual_seed(seed), batch=batch, samples=2)
        for seed, batch in ((0, 2), (1, 100))
    )
    assert one.tolist() == pytest.approx(other.tolist(), rel=1e-5)
    assert one.shape == (9,)


def test_gain_is_the_relative_fall_of_perplexity_and_its_rows_have_its_mean_and_its_error():
    generator = torch.Generator().manual_seed(0)
    unigram = 40 + torch.randn(5000, generator=generator, dtype=torch.float64)
    grammar = unigram - 4 + 2 * torch.randn(5000, generator=generator, dtype=torch.float64)
    gain = relative_gain(grammar, unigram, 16)
    expected = 100 * (1 - math.exp(grammar.mean() / 16) / math.exp(unigram.mean() / 16))
    assert gain == pytest.approx(expected)
    rows = gain_rows(grammar, unigram, 16)
    assert rows.mean().item() == pytest.approx(gain)
    error = (rows.var() / len(rows)).sqrt()
    drawn = torch.randint(5000, (1500, 5000), generator=torch.Generator().manual_seed(1))
    repeats = torch.tensor([relative_gain(grammar[row], unigram[row], 16) for row in drawn])
    assert error.item() == pytest.approx(repeats.std().item(), rel=0.1)


def test_the_shape_of_a_grammar_that_uses_one_rule():
    grammar = model(nonterminals=1, preterminals=1)
    with torch.no_grad():
        grammar.binary.weight.zero_()
        grammar.binary.bias.copy_(torch.tensor([-40.0, -40.0, 40.0, 40.0]))
    # Symbols are the nonterminal and the preterminal; only P N and P P are possible: a chain to the right.
    shape = grammar_shape(grammar, torch.zeros(3, 4, dtype=torch.int64))
    assert shape.trees.right_branching.tolist() == [1, 1, 1]
    assert shape.trees.left_branching.tolist() == [0, 0, 0]
    assert shape.rules_for_95 == pytest.approx(2 / 4)


def test_windows_stay_inside_documents_and_what_is_left_over_is_dropped():
    windows, owners = windows_of([torch.arange(5), torch.arange(1), torch.arange(10, 14)], 2)
    assert windows.tolist() == [[0, 1], [2, 3], [10, 11], [12, 13]]
    assert owners.tolist() == [0, 0, 2, 2]
    with pytest.raises(GrammarError, match="expected longer"):
        windows_of([torch.arange(3)], 4)


def test_shuffling_keeps_the_tokens_of_every_sentence():
    sentences = torch.randint(9, (20, 7), generator=torch.Generator().manual_seed(0))
    mixed = shuffled(sentences, torch.Generator().manual_seed(1))
    assert torch.equal(mixed.sort(1).values, sentences.sort(1).values)
    assert not torch.equal(mixed, sentences)
