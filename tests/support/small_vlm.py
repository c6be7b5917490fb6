"""A small vision-language model with large weights, and questions about scenes, for tests of what it reads."""

from __future__ import annotations

import polars as pl
import torch

from components.language.causal_lm import CausalLM, CausalLMConfig
from components.multimodal.packed_qa import PackedBatch, pack_questions
from components.multimodal.vlm import VLM
from components.multimodal.words import WordVocabulary

WORDS = WordVocabulary(["?", "a", "blue", "is", "it", "no", "red", "the", "there", "what", "yes"])
TYPES = ("colour", "exist")
QUESTIONS = pl.DataFrame(
    {
        "row": [0, 0, 0, 1, 1],
        "type": ["exist", "colour", "exist", "colour", "exist"],
        "question": ["is it red?", "what is the red?", "is there a blue?", "what is it?", "is there the blue a red?"],
        "answer": ["yes", "red", "no", "blue", "yes"],
    }
)
LAYERS = 4


def small_vlm(rows: int = 3, width: int = 16, layers: int = LAYERS, seed: int = 0) -> VLM:
    """Return a model of rows^2 visual tokens that has not been trained but whose tokens all matter."""
    torch.manual_seed(seed)
    language = CausalLM(CausalLMConfig(len(WORDS), 64, width, layers, 2, tied=True, positions="rotary", norm="rms"))
    torch.nn.init.normal_(language.embedding.weight, std=1.0)
    for name, parameter in language.transformer.named_parameters():
        if parameter.dim() == 2:
            torch.nn.init.normal_(parameter, std=(0.6 if "query" in name or "key" in name else 0.35))
    return VLM(language=language, words=WORDS.entries, rows=rows, feature_width=5, merge=1, encoder="").eval()


def packed(questions: pl.DataFrame = QUESTIONS) -> PackedBatch:
    """Return the questions of two scenes, packed."""
    return pack_questions(questions, 2, WORDS, TYPES).batch(torch.arange(2))


def single(question: str) -> PackedBatch:
    """Return one question about one scene."""
    row = pl.DataFrame({"row": [0], "type": ["exist"], "question": [question], "answer": ["yes"]})
    return pack_questions(row, 1, WORDS, TYPES).batch(torch.tensor([0]))


def visual_tokens(model: VLM, count: int | None = None, seed: int = 1) -> torch.Tensor:
    """Return visual tokens of two scenes, (2, count, D)."""
    count = model.rows**2 if count is None else count
    return torch.randn(2, count, model.language.config.width, generator=torch.Generator().manual_seed(seed))
