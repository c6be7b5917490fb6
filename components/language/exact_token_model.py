"""The token distribution of a source, by enumerating every text of one length: an infinitely trained model.

Letters: V tokens, A characters, N characters of a text, B sequences, T tokens of a sequence, M tree nodes.
"""

from __future__ import annotations

import itertools

import numpy as np
import torch
from torch import Tensor

from components.data.markov import Chain
from components.errors import TesseraError
from components.tokenizers.text.validity import TextTokenizer

_MOST_TEXTS = 1 << 20


class ExactTokenModelError(TesseraError):
    """A source too large to enumerate, or one that cannot be normalised."""


class ExactTokenModel:
    """Next-token probabilities of a source of finitely many texts, encoded.

    `P(t | t_1..t_i) = P(encoding begins with t_1..t_i t) / P(encoding begins with t_1..t_i)`,
    each the sum of the probabilities of the texts whose encoding begins so. The next-token probabilities sum to less
    than 1 by the probability that the text ends there.

    Exact for every deterministic tokenizer. Where all texts have N characters, a string of up to N characters keeps
    its probability as a text's beginning; only a token context close to the end knows that the text ends.

    Args:
        tokenizer: The tokenizer.
        texts: Distinct texts.
        log_probabilities: ln P of each text, which sum to 1.

    Source: Phan et al. 2024, "Understanding and Mitigating Tokenization Bias in Language Models" (arXiv 2406.16829),
    the token distribution that a tokenizer induces.
    """

    def __init__(self, tokenizer: TextTokenizer, texts: list[str], log_probabilities: np.ndarray) -> None:
        probabilities = np.exp(log_probabilities)
        if abs(probabilities.sum() - 1) > 1e-9:
            raise ExactTokenModelError(f"The texts' probabilities sum to {probabilities.sum()}; expected 1.")
        encodings = [tokenizer.encode(text) for text in texts]
        longest = max(map(len, encodings))
        tokens = np.full((len(texts), longest), -1, np.int64)
        for row, encoding in enumerate(encodings):
            tokens[row, : len(encoding)] = encoding

        size = len(tokenizer.vocabulary)
        node, children, masses, nodes = np.zeros(len(texts), np.int64), [], [np.ones(1)], 1
        for index in range(longest):
            rows = np.flatnonzero(tokens[:, index] >= 0)
            pairs, places = np.unique(node[rows] * size + tokens[rows, index], return_inverse=True)
            node[rows] = nodes + places
            children.append(pairs)
            masses.append(np.bincount(places, probabilities[rows], len(pairs)))
            nodes += len(pairs)
        child = np.full(nodes * size, -1, np.int64)
        child[np.concatenate(children)] = np.arange(1, nodes)
        mass = np.concatenate(masses)
        self._child = child.reshape(nodes, size)  # [M, V]
        with np.errstate(divide="ignore"):
            # [M + 1, V]: the last row belongs to sequences that begin no encoding; nothing follows them.
            table = np.where(self._child >= 0, mass[self._child] / mass[:, None], 0.0)
            self._log_probabilities = torch.from_numpy(np.log(np.vstack([table, np.zeros((1, size))])))
        self.vocabulary_size = size

    @classmethod
    def of_chain(cls, chain: Chain, tokenizer: TextTokenizer, length: int) -> ExactTokenModel:
        """Enumerate all A^length texts of a stationary chain.

        Raises:
            ExactTokenModelError: There are more than 2^20 of them.
        """
        if len(chain.alphabet) ** length > _MOST_TEXTS:
            raise ExactTokenModelError(
                f"{len(chain.alphabet)}^{length} texts are too many to enumerate; expected at most {_MOST_TEXTS}. "
                "Use a shorter length."
            )
        texts = ["".join(letters) for letters in itertools.product(chain.alphabet, repeat=length)]
        places = np.arange(len(texts))[:, None]
        codes = places // len(chain.alphabet) ** np.arange(length - 1, -1, -1) % len(chain.alphabet)
        return cls(tokenizer, texts, chain.log_probability(codes))

    def along(self, tokens: Tensor) -> Tensor:
        """Return ln P(next token) after the first 0 .. T tokens of each sequence, (B, T) to (B, T + 1, V) float64.

        Rows behind a sequence that begins no encoding are -inf everywhere.
        """
        tokens = tokens.cpu().numpy()
        nodes = np.zeros((len(tokens), tokens.shape[1] + 1), np.int64)
        for index in range(tokens.shape[1]):
            before = nodes[:, index]
            nodes[:, index + 1] = np.where(before >= 0, self._child[before, tokens[:, index]], -1)
        return self._log_probabilities[torch.from_numpy(nodes)]
