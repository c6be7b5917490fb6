"""Speculative decoding beside plain cached decoding, prompt look-up and a matrix that is never refreshed.

On a processor a forward pass over 81 tokens costs several times one over a single token, so no ratio of times has a
bar. What the loop itself may cost has one: drafting, choosing, compacting and learning together stay below a
millisecond a step.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from components.language.generation import generate
from components.language.pretrained import LanguageModel, load_language_model
from components.language.speculative import adjacency, prompt_lookup
from components.language.speculative.choices import Greedy
from components.language.speculative.decoding import Decoded, decode
from components.language.speculative.tree import recycling_tree
from components.language.speculative.tree_verify import keep_path, longest_path, tree_logits
from components.nn.transformer import KeyValueCache
from components.tokenizers.text.byte_level import to_symbols

pytestmark = pytest.mark.benchmark_bar

ROOT = Path(__file__).resolve().parents[2]
PROMPTS, PROMPT, COUNT, ROUNDS = 8, 64, 64, 3
BAR_MILLISECONDS = 1.0


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def language() -> LanguageModel:
    return load_language_model(ROOT / "bases" / "lm-code-2m")


@pytest.fixture(scope="module")
def prompts(language) -> list[list[int]]:
    """Beginnings of this repository's own modules, which no training saw."""
    files = sorted((ROOT / "flows" / "engine").glob("*.py"))
    texts = [file.read_text(encoding="utf-8").partition("\nimport ")[2] for file in files]
    encoded = [language.tokenizer.encode(to_symbols(text)) for text in texts]
    return [tokens[:PROMPT] for tokens in encoded if len(tokens) >= PROMPT][:PROMPTS]


def test_decoding_with_drafts_beside_plain_cached_decoding(language, prompts, benchmark):
    model = language.model
    table = warm(language, prompts)
    decoders: dict[str, Callable[[], list[Decoded]]] = {
        "plain": lambda: plainly(language, prompts),
        "prompt look-up": lambda: drafted(language, prompts, prompt_lookup.build(0)),
        "token recycling, hot": lambda: drafted(language, prompts, adjacency.build(model.vocabulary_size)),
        "token recycling, frozen": lambda: drafted(
            language, prompts, adjacency.build(model.vocabulary_size, start=table, refresh=False)
        ),
    }
    seconds: dict[str, list[float]] = {name: [] for name in decoders}
    passes: dict[str, int] = {}

    def interleaved() -> None:
        for name, run in decoders.items():
            began = time.perf_counter()
            found = run()
            seconds[name].append(time.perf_counter() - began)
            passes[name] = sum(len(one.accepted) for one in found)

    benchmark.pedantic(interleaved, rounds=ROUNDS, warmup_rounds=1)
    tokens = COUNT * len(prompts)
    for name, values in seconds.items():
        benchmark.extra_info[name] = {
            "tokens_per_second": tokens / statistics.median(values[1:]),
            "tokens_per_forward": tokens / passes[name],
            "speed_over_plain": statistics.median(seconds["plain"][1:]) / statistics.median(values[1:]),
        }


def plainly(language: LanguageModel, prompts: list[list[int]]) -> list[Decoded]:
    """Decode with the ordinary cached generator, without trees or masks."""
    found = []
    for prompt in prompts:
        new = generate(language.model, torch.tensor([prompt]), COUNT, torch.Generator(), temperature=0)[0].tolist()
        found.append(Decoded(new, [1] * COUNT, [()] * COUNT))
    return found


def drafted(language: LanguageModel, prompts: list[list[int]], drafter) -> list[Decoded]:
    return [decode(language.model, prompt, COUNT, drafter) for prompt in prompts]


def warm(language: LanguageModel, prompts: list[list[int]]) -> torch.Tensor:
    drafter = adjacency.build(language.model.vocabulary_size)
    drafted(language, prompts, drafter)
    return drafter.matrix.table


def test_a_step_costs_less_than_a_millisecond_beside_its_forward_pass(language, prompts, benchmark):
    model, tree = language.model, recycling_tree()
    matrix = adjacency.AdjacencyMatrix.of(warm(language, prompts))
    cache = KeyValueCache(256)
    prompt = torch.tensor([prompts[0]])
    with torch.no_grad():
        model(model.with_start(prompt), cache)
    past = cache.length
    seconds: dict[str, list[float]] = {"forward": [], "step": []}

    @torch.no_grad()
    def step() -> None:
        began = time.perf_counter()
        tokens = tree.fill(matrix.table, int(prompt[0, -1]))
        middle = time.perf_counter()
        logits = tree_logits(model, tree, tokens, cache)
        end = time.perf_counter()
        chosen = Greedy()(logits, tree.depths + past).argmax(-1)
        path = longest_path(tree, tokens, chosen)
        torch.stack([path, chosen[path.clamp(min=0)]]).tolist()
        keep_path(cache, past, [0, 1, 10], tree.device)  # a path whose entries have to move
        matrix.update(tokens, logits)
        seconds["step"].append(time.perf_counter() - end + middle - began)
        seconds["forward"].append(end - middle)
        cache.truncate(past)

    benchmark.pedantic(step, rounds=100, warmup_rounds=10)
    own, forward = (1000 * statistics.median(seconds[name]) for name in ("step", "forward"))
    benchmark.extra_info.update(step_milliseconds=own, forward_milliseconds=forward, bar_milliseconds=BAR_MILLISECONDS)
    assert own < BAR_MILLISECONDS, f"{own:.2f} ms a step beside a forward pass of {forward:.1f} ms"


def test_what_a_forward_pass_over_a_tree_costs_and_what_drafts_would_bring_at_that_price(language, prompts, benchmark):
    """Modelled speed: tokens per forward pass times t(1) / t(nodes), what a loop that costs nothing would reach."""
    sizes = (1, 9, 25, 49, 81)
    seconds: dict[int, list[float]] = {size: [] for size in sizes}
    benchmark.pedantic(lambda: time_forwards(language, prompts, seconds), rounds=50, warmup_rounds=5)
    one = statistics.median(seconds[1])
    for size, values in seconds.items():
        drafter = adjacency.build(language.model.vocabulary_size, drafts=max(1, size - 1))
        found = drafted(language, prompts, drafter)
        accepted = COUNT * len(prompts) / sum(len(each.accepted) for each in found) if size > 1 else 1.0
        cost = statistics.median(values) / one
        benchmark.extra_info[f"{size} tokens"] = {
            "milliseconds": 1000 * statistics.median(values),
            "over_one_token": cost,
            "tokens_per_forward": accepted,
            "modelled_speed": accepted / cost,
        }


@torch.no_grad()
def time_forwards(language: LanguageModel, prompts: list[list[int]], seconds: dict[int, list[float]]) -> None:
    """Time one forward pass over the first nodes of the tree for each size, in turns."""
    model, tree = language.model, recycling_tree()
    cache = KeyValueCache(256)
    model(model.with_start(torch.tensor([prompts[0]])), cache)
    past = cache.length
    tokens = torch.tensor([prompts[1] + prompts[2]])
    for size, values in seconds.items():
        part = tree.first(size - 1)
        mask = part.mask(past)
        began = time.perf_counter()
        model(tokens[:, :size], cache, places=part.depths + past, mask=mask)
        values.append(time.perf_counter() - began)
        cache.truncate(past)
