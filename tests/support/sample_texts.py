"""Small texts for tests of tokenizers: words of a sentence in random order, and texts of a Markov chain."""

from __future__ import annotations

import numpy as np

from components.data.markov import random_binary_chain

_SENTENCE = "the theme then them that hat heat, meat: a team; an ant at the tent!\nThe end"


def english(words: int = 600) -> str:
    return " ".join(np.random.default_rng(0).choice(_SENTENCE.split(" "), size=words))


def chain_texts(seed: int = 0) -> list[str]:
    chain = random_binary_chain(seed, 3)
    return chain.texts(chain.sample(60, 60, np.random.default_rng(seed)))
