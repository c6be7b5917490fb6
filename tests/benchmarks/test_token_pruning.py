"""Keeping some visual tokens: the choice alone beside a straightforward one, and a language model that reads fewer.

The peer of the kernel is greedy k-center as its papers write it down: unit vectors, the whole matrix of distances of a
picture, then the farthest token again and again, one picture after the other. One thread.
"""

from __future__ import annotations

import limits
import pytest
import torch
import torch.nn.functional as F
import turns
from torch import Tensor

from components.compression import pool, prune
from components.compression.dropped_decoding import DroppingDecoder
from components.language.causal_lm import CausalLM, CausalLMConfig
from components.multimodal.vlm import VLM
from components.multimodal.words import WordVocabulary

pytestmark = pytest.mark.benchmark_bar

PICTURES, ROWS, WIDTH = 8, 24, 192
BARS = {16: 1.0}
END_TO_END_BAR = 1.5
QUESTION = 12


def straightforward(features: Tensor, first: Tensor, count: int) -> Tensor:
    """Choose `count` tokens of every picture (B, N, D) by the largest least distance."""
    chosen = []
    for tokens, start in zip(features, first.tolist(), strict=True):
        unit = F.normalize(tokens.double(), dim=-1)
        distance = 1 - unit @ unit.t()
        order = [start]
        least = distance[start].clone()
        least[start] = -1
        for _ in range(count - 1):
            new = int(least.argmax())
            order.append(new)
            least = torch.minimum(least, distance[new])
            least[order] = -1
        chosen.append(torch.tensor(sorted(order)))
    return torch.stack(chosen)


@torch.no_grad()
@pytest.mark.parametrize("kept", [16, 64])
def test_choosing_diverse_tokens_beside_a_straightforward_greedy_choice(kept, one_thread, benchmark):
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(PICTURES, ROWS**2, WIDTH, generator=generator)
    attention = torch.rand(PICTURES, ROWS**2, generator=generator)
    works = {
        "ours": lambda: prune.kcenter(features, attention, kept),
        "peer": lambda: straightforward(features, attention.argmax(1), kept),
    }
    assert torch.equal(works["ours"](), works["peer"]())
    found = turns.facts(**turns.in_turns(benchmark, works, rounds=11))
    # Every chosen token but the last is compared with all of its picture, in double precision.
    moved = 8 * PICTURES * ROWS**2 * WIDTH * (kept - 1)
    benchmark.extra_info.update(
        _in_milliseconds(found),
        limit=1e3 * moved / limits.bytes_per_second(),
    )
    print(benchmark.extra_info)
    assert found["ratio"] >= BARS.get(kept, 0)


@torch.no_grad()
def test_a_language_model_that_reads_a_quarter_of_the_visual_tokens_is_faster(one_thread, benchmark):
    torch.manual_seed(0)
    words = WordVocabulary([f"w{number:02}" for number in range(40)] + ["?"])
    language = CausalLM(CausalLMConfig(len(words), 640, WIDTH, 6, 4, tied=True, positions="rotary"))
    model = VLM(language=language, words=words.entries, rows=ROWS, feature_width=96, merge=1, encoder="").eval()
    features = torch.randn(2, ROWS**2, 96)
    attention = torch.rand(2, ROWS**2)
    question = torch.randint(len(words), (2, QUESTION))
    select = prune.build("kcenter")

    def read(kept: Tensor | None) -> Tensor:
        visual = model.visual(features)
        if kept is None:
            return DroppingDecoder(model, visual, question).logits
        place = ROWS**2 + 1
        return DroppingDecoder(model, pool.kept(visual, kept), question, places=kept + 1, text_place=place).logits

    def pruned() -> Tensor:
        return read(select(model.visual(features), attention, ROWS**2 // 4))

    everything = torch.arange(ROWS**2).expand(2, -1)
    torch.testing.assert_close(read(everything), read(None), rtol=1e-4, atol=1e-4)
    chosen = select(model.visual(features), attention, ROWS**2 // 4)
    times = turns.in_turns(benchmark, {"ours": pruned, "peer": lambda: read(None), "alone": lambda: read(chosen)}, 11)
    found = turns.facts(times["ours"], times["peer"])
    alone = turns.facts(times["alone"])["ours"]
    benchmark.extra_info.update(
        _in_milliseconds(found),
        limit=_milliseconds(alone),
    )
    print(benchmark.extra_info)
    assert found["ratio"] >= END_TO_END_BAR


def _in_milliseconds(found: dict) -> dict:
    """Turn seconds into milliseconds, and leave ratios as they are."""
    return {key: value if key in ("ratio", "interval") else _milliseconds(value) for key, value in found.items()}


def _milliseconds(value: float | list[float]) -> float | list[float]:
    return [1e3 * each for each in value] if isinstance(value, list) else 1e3 * value
