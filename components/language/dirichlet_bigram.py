"""A bigram model of sentences that falls back on single tokens where pairs are rare.

    P(t | s) = (n(s, t) + a P(t)) / (n(s) + a)

n counts pairs of neighbours inside sentences, with a start before each; P is the unigram model of the same sentences.
The strength a is the one under which every training pair is likeliest when it is left out of the counts itself.

Letters: `B` sentences, `n` tokens of a sentence, `V` vocabulary.

Source: MacKay and Peto 1995, "A hierarchical Dirichlet language model", section 3.
"""

from __future__ import annotations

import torch
from torch import Tensor

from components.language.count_models import UnigramCounts

_STRENGTHS = 2.0 ** torch.arange(0, 15, dtype=torch.float64)


class DirichletBigram:
    """See the module.

    Args:
        sentences: Training sentences, (B, n) int64.
        vocabulary_size: V.

    Attributes:
        strength: a, a power of two.
    """

    def __init__(self, sentences: Tensor, vocabulary_size: int) -> None:
        self._size = vocabulary_size
        pairs = self._contexts(sentences) * vocabulary_size + sentences
        counts = torch.bincount(pairs.flatten(), minlength=(vocabulary_size + 1) * vocabulary_size).double()
        self._counts = counts.view(vocabulary_size + 1, vocabulary_size)
        self._totals = self._counts.sum(1)
        self._unigram = UnigramCounts(sentences.flatten(), vocabulary_size).log_probabilities.exp()
        likelihoods = torch.stack([self._left_out_likelihood(strength) for strength in _STRENGTHS])
        self.strength = float(_STRENGTHS[likelihoods.argmax()])

    def nats(self, sentences: Tensor) -> Tensor:
        """Return -ln P of each token behind those before it, (B, n) float64; the first stands behind the start."""
        before = self._contexts(sentences)
        joint = self._counts[before, sentences] + self.strength * self._unigram[sentences]
        return -(joint / (self._totals[before] + self.strength)).log()

    def _contexts(self, sentences: Tensor) -> Tensor:
        start = torch.full_like(sentences[:, :1], self._size)
        return torch.cat([start, sentences[:, :-1]], 1)

    def _left_out_likelihood(self, strength: Tensor) -> Tensor:
        before, after = self._counts.nonzero(as_tuple=True)
        seen = self._counts[before, after]
        joint = seen - 1 + strength * self._unigram[after]
        return (seen * (joint / (self._totals[before] - 1 + strength)).log()).sum()
