import pytest
import torch

from components.language.count_models import UnigramCounts
from components.language.dirichlet_bigram import DirichletBigram


def test_probabilities_behind_every_token_and_the_start_sum_to_1():
    sentences = torch.randint(5, (40, 6), generator=torch.Generator().manual_seed(0))
    model = DirichletBigram(sentences, 5)
    for before in range(5):
        behind = torch.tensor([[before, after] for after in range(5)])
        assert (-model.nats(behind)[:, 1]).exp().sum().item() == pytest.approx(1)
    assert (-model.nats(torch.arange(5).view(5, 1))).exp().sum().item() == pytest.approx(1)


def test_probabilities_are_those_of_the_formula_and_no_pair_reaches_across_sentences():
    model = DirichletBigram(torch.tensor([[0, 1], [0, 1], [0, 1]]), 2)
    a, unigram = model.strength, 0.5
    seen, never = (3 + a * unigram) / (3 + a), a * unigram / (3 + a)
    nats = model.nats(torch.tensor([[0, 1], [1, 0]]))
    assert (-nats[0]).exp().tolist() == pytest.approx([seen, seen])
    # Behind 1 nothing was seen: only the unigram model speaks.
    assert (-nats[1]).exp().tolist() == pytest.approx([never, unigram])


def test_of_independent_tokens_it_is_the_unigram_model_and_of_a_chain_it_is_the_chain():
    generator = torch.Generator().manual_seed(0)
    noise = torch.randint(30, (300, 12), generator=generator)
    held_out = torch.randint(30, (200, 12), generator=generator)
    unigram = UnigramCounts(noise.flatten(), 30).nats(held_out).mean()
    assert DirichletBigram(noise, 30).nats(held_out).mean() < unigram + 0.02
    steps = torch.randint(2, (500, 12), generator=generator).cumsum(1) % 30
    model = DirichletBigram(steps[:300], 30)
    assert model.nats(steps[300:])[:, 1:].mean().item() == pytest.approx(torch.tensor(2.0).log().item(), abs=0.1)
