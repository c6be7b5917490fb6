import math

import numpy as np
import pytest
import torch
from scipy.stats import pearsonr

from components.analysis.token_behaviour import Probe, ShortText, Windows, conditional_table, schedule
from components.data.switching_chain import character_entropy, sample_text, switching_chain
from components.language.causal_lm import CausalLM, CausalLMConfig
from components.language.unigram_lm import UnigramModel

CHAIN = switching_chain(2, 0.8, 0.7)


class Conditional(torch.nn.Module):
    """A stand-in model that predicts from a table of next-token distributions, one row per context key."""

    start_token = 0

    def __init__(self, logs: torch.Tensor) -> None:
        super().__init__()
        self.logs = logs

    def with_start(self, tokens):
        return torch.nn.functional.pad(tokens, (1, 0))

    def forward(self, tokens):
        # Order 2 over characters: the last two characters decide; windows are watched from the third on.
        last, before = tokens, torch.nn.functional.pad(tokens[:, :-1], (1, 0))
        return self.logs[before * 2 + last]


def characters_as_windows(length: int, context: int, seed: int) -> Windows:
    codes = sample_text(CHAIN, length, np.random.default_rng(seed))
    return Windows.of(CHAIN, codes, codes.astype(np.int64), np.ones(2, np.int64), context)


def test_the_true_conditional_loses_the_entropy_rate_and_diverges_from_itself_by_nothing():
    held_out, counted = characters_as_windows(60_000, 100, 0), characters_as_windows(200_000, 100, 1)
    probe = Probe(held_out, counted, 2, 16, "cpu")
    assert probe.characters == 600 * 84
    truth = Conditional(torch.from_numpy(np.log(CHAIN.transitions)))
    loss, kl_unigram, kl_truth, _, correlation = probe.measure(truth).tolist()
    assert loss == pytest.approx(CHAIN.entropy_rate(), abs=3 * 0.6 / math.sqrt(probe.characters))
    assert kl_truth == pytest.approx(0, abs=2e-4)
    assert correlation > 0.999
    # The mean divergence of the conditional from the frequencies is what the past says about the next character.
    assert kl_unigram == pytest.approx(character_entropy(CHAIN) - CHAIN.entropy_rate(), abs=0.01)

    flat = Conditional(torch.from_numpy(np.log(CHAIN.character_frequencies))[None].expand(4, 2))
    loss, kl_unigram, kl_truth, correlation, _ = probe.measure(flat).tolist()
    assert loss == pytest.approx(character_entropy(CHAIN), abs=0.005)
    assert kl_unigram == pytest.approx(0, abs=1e-4)
    assert kl_truth > 0.1
    assert correlation > 0.99


def test_divergences_and_correlations_are_those_of_all_places_one_by_one():
    held_out, counted = characters_as_windows(2_000, 20, 2), characters_as_windows(3_000, 20, 3)
    torch.manual_seed(0)
    model = CausalLM(CausalLMConfig(2, 20, 8, 1, 2)).eval()
    measured = Probe(held_out, counted, 2, 5, "cpu").measure(model).tolist()
    unigram = np.exp(UnigramModel.fit(counted.tokens.ravel(), 2).log_probabilities)
    known, table = conditional_table(counted.contexts.ravel(), counted.tokens.ravel(), unigram)
    logs = model.along(torch.from_numpy(held_out.tokens[:, :-1])).detach().numpy()
    nats, kls, shares = [], [], []
    for window in range(100):
        for place in range(5, 20):
            p = np.exp(logs[window, place])
            truth = table[known.tolist().index(held_out.contexts[window, place])]
            nats.append(-logs[window, place, held_out.tokens[window, place]])
            kls.append([(p * np.log(p / other)).sum() for other in (unigram, truth)])
            shares.append([p, unigram, truth])
    shares = np.array(shares)
    expected = [np.mean(nats), *np.mean(kls, 0)]
    expected += [pearsonr(shares[:, 0].ravel(), shares[:, other].ravel())[0] for other in (1, 2)]
    assert measured == pytest.approx(expected, rel=1e-6)


def test_windows_are_cut_by_tokens_and_count_the_characters_they_cover():
    codes = np.array([0, 1, 1, 0, 1, 0, 0, 1, 1, 1], np.uint8)
    tokens, lengths = np.array([2, 1, 0, 3, 0, 1]), np.array([1, 1, 2, 3])  # 01|1|0|100|1|1 ...
    windows = Windows.of(CHAIN, codes, tokens, lengths, 2)
    assert windows.tokens.tolist() == [[2, 1], [0, 3], [0, 1]]
    assert windows.lengths.tolist() == [[2, 1], [1, 3], [1, 1]]
    assert windows.starts.tolist() == [[0, 2], [0, 1], [0, 1]]
    # (token before) x 4 states + the last two characters read as a number; none at the start of the text.
    assert windows.contexts.tolist() == [[-1, 2 * 4 + 1], [1 * 4 + 3, 0 * 4 + 2], [3 * 4 + 0, 0 * 4 + 1]]
    with pytest.raises(ShortText, match="6 tokens"):
        Windows.of(CHAIN, codes, tokens, lengths, 7)


def test_a_training_is_watched_often_at_first_and_at_its_end():
    assert schedule(800, 100, 5, 20)[:3] == (5, 10, 15)
    assert schedule(800, 100, 5, 20)[18:23] == (95, 100, 120, 140, 160)
    assert schedule(800, 100, 5, 20)[-1] == 800
    assert len(schedule(800, 100, 5, 20)) == 20 + 35
    assert schedule(7, 100, 5, 20) == (5, 7)
