"""Markov sources, whose entropies are known, and their dictionaries.

Letters: N characters, T tokens, V tokens of a dictionary.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from components.data.markov import Chain
from components.data.switching_chain import dirichlet_chain, sample_text, switching_chain
from components.errors import TesseraError
from components.tokenizers.text import encoders
from components.tokenizers.text.max_prefix import MaxPrefixTokenizer
from components.tokenizers.text.trie import VocabularyTrie
from flows.studies.text_tokenizer.params import EvaluateParams, TrainParams

_SWITCHING = {"k1": (1, 0.8), "k2": (2, 0.8), "k4": (4, 0.8), "skewed": (1, 0.99)}
_GENERAL_ORDER, _FLOOR = 2, 0.05


class DictionaryError(TesseraError):
    """An arm names a dictionary that a Markov source cannot have."""


def chain_of(source: str, seed: int) -> Chain:
    """Return a Markov source; the general one is drawn anew for every seed."""
    if source == "general":
        return dirichlet_chain(seed, _GENERAL_ORDER, _FLOOR)
    order, probability = _SWITCHING[source]
    return switching_chain(order, probability, probability)


def draw_text(chain: Chain, length: int, seed: int, purpose: str) -> np.ndarray:
    """Draw a text for one purpose ("dictionary", "fit", "test", ...), independent of those for others, (N,) uint8."""
    return sample_text(chain, length, np.random.default_rng([seed, *purpose.encode()]))


def spell(chain: Chain, codes: np.ndarray) -> str:
    """Spell character indices, (N,)."""
    return chain.texts(codes[None])[0]


@dataclass(frozen=True)
class Tokenised:
    """Texts in the tokens of one dictionary.

    Attributes:
        size: Vocabulary size asked for.
        lengths: Characters of each token, (V,).
        texts: Token ids of each text, (T,) each.
    """

    size: int
    lengths: np.ndarray
    texts: tuple[np.ndarray, ...]


def tokenised(
    params: EvaluateParams, chain: Chain, learned: np.ndarray, texts: Sequence[np.ndarray]
) -> Iterator[Tokenised]:
    """Encode texts with the dictionaries of an arm, one for each of `chain_sizes`.

    Every dictionary but that of fixed n-grams is the beginning of the largest one.

    Args:
        params: Dictionary, encoder and sizes.
        chain: Source of all texts.
        learned: Text that the dictionary is learned from.
        texts: Texts to encode.
    """
    sizes, name = params.chain_sizes, params.tokenizer
    if name == "characters":
        yield _result(2, chain.alphabet, texts)
    elif name == "fixed_ngram":
        module = importlib.import_module("components.tokenizers.text.fixed_ngram")
        for size in sizes:
            blocks = module.FixedNgramTokenizer(chain.alphabet, size.bit_length() - 1)
            yield _result(size, blocks.vocabulary, [blocks.encode_codes(text) for text in texts])
    elif name in ("bpe", "bpe_sequential") and params.encoder == "own":
        module = importlib.import_module("components.tokenizers.text.bpe_trainer")
        merges = _merges(name, spell(chain, learned), max(sizes), chain.alphabet)
        runs = zip(*(module.encode_at_sizes(merges, text, sizes) for text in texts), strict=True)
        for size, encoded in zip(sizes, runs, strict=True):
            yield _result(size, merges.vocabulary[:size], encoded)
    else:
        vocabulary = _vocabulary(name, spell(chain, learned), max(sizes), chain.alphabet)
        encode = encoders.minimal if params.encoder == "minimal" else encoders.greedy
        for size in sizes:
            trie = VocabularyTrie(vocabulary[:size])
            yield _result(size, trie.vocabulary, [encode(trie, text) for text in texts])


def tokenizer_of(params: TrainParams, chain: Chain, seed: int) -> Any:
    """Learn the one tokenizer of a transformer arm."""
    if params.tokenizer == "characters":
        return MaxPrefixTokenizer(chain.alphabet)
    text = spell(chain, draw_text(chain, params.tokenizer_characters, seed, "dictionary"))
    if params.tokenizer == "bpe":
        return _merges("bpe", text, params.vocabulary_size, chain.alphabet).tokenizer()
    return MaxPrefixTokenizer(_vocabulary(params.tokenizer, text, params.vocabulary_size, chain.alphabet))


def encode(tokenizer: Any, chain: Chain, codes: np.ndarray) -> np.ndarray:
    """Encode a long text with a transformer's tokenizer, (N,) to (T,) int64."""
    if isinstance(tokenizer, MaxPrefixTokenizer):
        return encoders.greedy(tokenizer.trie, codes).astype(np.int64)
    return np.array(tokenizer.encode(spell(chain, codes)), np.int64)


def _merges(name: str, text: str, size: int, alphabet: str) -> Any:
    module = importlib.import_module("components.tokenizers.text.bpe_trainer")
    if name == "bpe_sequential":
        return module.learn_sequentially(text, size, alphabet=alphabet)
    return module.learn({text: 1}, size, alphabet=alphabet)


def _vocabulary(name: str, text: str, size: int, alphabet: str) -> tuple[str, ...]:
    if name in ("bpe", "bpe_sequential"):
        return _merges(name, text, size, alphabet).vocabulary
    if name == "lzw":
        return importlib.import_module("components.tokenizers.text.lzw").learn([text], size, alphabet=alphabet)
    raise DictionaryError(
        f"tokenizer {name!r} has no dictionary of a Markov source; expected characters, fixed_ngram, lzw, bpe or "
        "bpe_sequential."
    )


def _result(size: int, vocabulary: Sequence[str], texts: Sequence[np.ndarray]) -> Tokenised:
    return Tokenised(size, np.array([len(token) for token in vocabulary]), tuple(texts))
