"""Token models for tests of byte algorithms: random ones over small tokenizers, and small untrained networks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from sample_texts import chain_texts, english

from components.language.byte_conversion import NextToken
from components.language.causal_lm import CausalLM, CausalLMConfig
from components.language.token_rows import ByteVocabulary, TokenRows
from components.tokenizers.text import bpe, unigram
from components.tokenizers.text.continuations import continuations_of
from components.tokenizers.text.max_prefix import MaxPrefixTokenizer


def small_tokenizers() -> dict[str, object]:
    """Tokenizers of at most ten tokens over an alphabet of two, by kind."""
    texts = [text.translate(str.maketrans("AB", "ab")) for text in chain_texts()]
    return {
        "bpe": bpe.train(texts, 8),
        "other bpe": bpe.train(["abbbabaabbaaab" * 8, "bbabaab" * 9], 8),
        "max prefix": MaxPrefixTokenizer(["a", "b", "aa", "ab", "abb", "baab", "bba", "bbb"]),
        "other max prefix": MaxPrefixTokenizer(["a", "b", "aba", "bb", "abbb"]),
        "unigram": unigram.train(texts, 8),
    }


def word_tokenizer() -> bpe.BytePairTokenizer:
    """BPE of English words with pieces."""
    return bpe.train([english()], 60, pieces=bpe.WORD_PIECES)


def byte_rows(tokenizer: object, next_token: NextToken, *, exact: bool, context: Sequence[int] = ()) -> TokenRows:
    """Rows of a model whose end of text has the id behind the tokenizer's tokens."""
    rows = continuations_of(tokenizer) if exact else None
    return TokenRows(
        next_token,
        ByteVocabulary(tokenizer),
        continuations=rows,
        end=len(tokenizer.vocabulary),
        context=context,
    )


def untrained(vocabulary_size: int, context: int = 64, positions: str = "rotary") -> CausalLM:
    """A small network whose predictions differ clearly from context to context, in double precision."""
    torch.manual_seed(0)
    model = CausalLM(CausalLMConfig(vocabulary_size, context, width=32, layers=2, heads=4, positions=positions))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3)
    return model.double().eval()
