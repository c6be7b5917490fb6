"""The unigram language model over tokens, and its loss on characters.

Letters: V tokens of the vocabulary, T tokens of a text, m characters of a text.
"""

from __future__ import annotations

import numpy as np

from components.errors import TesseraError


class UnigramModelError(TesseraError):
    """A unigram model was fitted to or asked about tokens that it cannot have."""


class UnigramModel:
    """Independent tokens: `Q(t_1 .. t_j) = Q_len(j) prod_i Q_tok(t_i)`, Q_len uniform on 1 .. m.

    Q_tok is the maximum-likelihood estimate of token frequencies, every count raised by a little, so that a token that
    never occurred costs much instead of everything.

    Attributes:
        log_probabilities: ln Q_tok, (V,).

    Args:
        counts: Occurrences of each token in a text of its own, (V,).
        pseudocount: Added to every count; 1/2 is the estimate of Krichevsky and Trofimov.

    Raises:
        UnigramModelError: There are no tokens, or the pseudocount is not positive.

    Source: Rajaraman et al. 2024, "Toward a Theory of Tokenization in LLMs" (arXiv 2404.08335), section 2.
    """

    def __init__(self, counts: np.ndarray, pseudocount: float = 0.5) -> None:
        if counts.ndim != 1 or not len(counts) or counts.min() < 0 or pseudocount <= 0:
            raise UnigramModelError(
                f"counts of shape {counts.shape} and pseudocount {pseudocount}; expected one count of at least 0 for "
                "each token and a positive pseudocount."
            )
        raised = counts + float(pseudocount)
        self.log_probabilities = np.log(raised / raised.sum())

    @classmethod
    def fit(cls, tokens: np.ndarray, vocabulary_size: int) -> UnigramModel:
        """Fit the model to the tokens of a text, (T,), independent of what the dictionary was learned from."""
        return cls(np.bincount(tokens, minlength=vocabulary_size))

    def token_nats(self, tokens: np.ndarray) -> np.ndarray:
        """Return -ln Q_tok of each token, any shape."""
        return -self.log_probabilities[tokens]

    def loss(self, tokens: np.ndarray, characters: int) -> float:
        """Return the cross-entropy from end to end, in nats per character.

            L_m = (ln m - sum_i ln Q_tok(t_i)) / m

        Args:
            tokens: Encoding of a text, (T,).
            characters: m, characters of that text. Never the tokens: losses of unlike tokenizers compare per character.

        Raises:
            UnigramModelError: There are fewer characters than tokens.
        """
        if characters < max(1, len(tokens)):
            raise UnigramModelError(f"{characters} characters for {len(tokens)} tokens; expected at least as many.")
        return float((self.token_nats(tokens).sum() + np.log(characters)) / characters)


def renewal_loss(tokens: np.ndarray, vocabulary_size: int, characters: int) -> float:
    """Return `H(token) / E[|t|]`, nats per character: the loss of the best unigram model in the long run.

    Entropy and mean length are those of the text itself, so that nothing is lost to estimating frequencies elsewhere;
    on a finite text it is a little too low, by about V / (2 m).

    Args:
        tokens: Encoding of a text, (T,).
        vocabulary_size: V.
        characters: m, characters of that text.

    Source: Rajaraman et al. 2024 (arXiv 2404.08335): tokens of a stationary source as a renewal process.
    """
    frequencies = np.bincount(tokens, minlength=vocabulary_size) / len(tokens)
    positive = frequencies[frequencies > 0]
    return float(-(positive * np.log(positive)).sum() * len(tokens) / characters)
