"""Training and generation of a language model beside a plain GPT of the same size, interleaved, on one thread."""

from __future__ import annotations

import statistics
import time

import pytest
import torch
from plain_gpt import PlainGPT, plain_loop

from components.language.causal_lm import CausalLM, CausalLMConfig
from components.language.generation import generate
from components.training.loop import Optimisation, fit

pytestmark = pytest.mark.benchmark_bar

VOCABULARY, CONTEXT, WIDTH, LAYERS, HEADS = 2048, 128, 192, 4, 4
BATCH, STEPS, ROUNDS = 8, 4, 5
PROMPT, COUNT = 16, 96


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def models() -> tuple[CausalLM, PlainGPT]:
    torch.manual_seed(0)
    ours = CausalLM(CausalLMConfig(VOCABULARY, CONTEXT, WIDTH, LAYERS, HEADS, tied=True))
    return ours, PlainGPT(VOCABULARY, CONTEXT, WIDTH, LAYERS, HEADS)


def count(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def test_training_is_at_least_as_fast_as_a_plain_loop(benchmark):
    ours, plain = models()
    assert count(ours) == pytest.approx(count(plain), rel=0.001)
    windows = torch.randint(VOCABULARY, (STEPS, BATCH, CONTEXT), generator=torch.Generator().manual_seed(1))
    seconds: dict[str, list[float]] = {"ours": [], "plain": []}

    def interleaved() -> None:
        began = time.perf_counter()
        fit(
            ours,
            lambda step, generator: windows[step],
            lambda model, batch, generator: (model.loss(batch), {}),
            Optimisation(STEPS, 1e-3),
            seed=0,
        )
        middle = time.perf_counter()
        # One token more, so that both predict as many.
        plain_loop(plain, lambda step: torch.cat([windows[step], windows[step][:, :1]], 1), STEPS, 1e-3)
        seconds["ours"].append(middle - began)
        seconds["plain"].append(time.perf_counter() - middle)

    interleaved()
    for values in seconds.values():
        values.clear()
    benchmark.pedantic(interleaved, rounds=ROUNDS)
    tokens = STEPS * BATCH * CONTEXT
    rate = {name: tokens / statistics.median(values) for name, values in seconds.items()}
    ratio = rate["ours"] / rate["plain"]
    benchmark.extra_info.update(
        ours_tokens_per_second=rate["ours"], peer_tokens_per_second=rate["plain"], ratio=ratio, bar_ratio=0.97
    )
    # Equal up to what two medians of five differ by.
    assert ratio > 0.97, f"{ratio:.2f} of the plain loop's tokens per second"


@pytest.mark.parametrize("batch", [1, 16])
def test_generation_is_at_least_as_fast_as_a_plain_one(batch, benchmark):
    ours, plain = models()
    ours.eval()
    plain.eval()
    prompts = torch.randint(VOCABULARY, (batch, PROMPT), generator=torch.Generator().manual_seed(2))
    seconds: dict[str, list[float]] = {"ours": [], "plain": []}

    def interleaved() -> None:
        began = time.perf_counter()
        new = generate(ours, prompts, COUNT, torch.Generator(), temperature=0)
        middle = time.perf_counter()
        plain.generate(prompts, COUNT)
        seconds["ours"].append(middle - began)
        seconds["plain"].append(time.perf_counter() - middle)
        assert new.shape == (batch, COUNT)

    interleaved()
    for values in seconds.values():
        values.clear()
    benchmark.pedantic(interleaved, rounds=ROUNDS)
    rate = {name: batch * COUNT / statistics.median(values) for name, values in seconds.items()}
    ratio = rate["ours"] / rate["plain"]
    benchmark.extra_info.update(
        ours_tokens_per_second=rate["ours"], peer_tokens_per_second=rate["plain"], ratio=ratio, bar_ratio=1.0
    )
    assert ratio > 1.0, f"{ratio:.2f} of the plain generation's tokens per second"
