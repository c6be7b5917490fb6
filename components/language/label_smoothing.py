"""Label smoothing that knows the order of digits: near ones get some of the label's probability, far ones none.

Letters: B sequences, T tokens, V tokens of the vocabulary, K number tokens.
"""

from __future__ import annotations

from torch import Tensor

from components.errors import TesseraError
from components.language.number_lookup import NumberLookup
from components.tokenizers.text.numeric import NumberTokens


class GaussianLabelSmoothing(NumberLookup):
    """Cross entropy whose number labels are spread over the number tokens around them.

        p_j = exp(-(v_j - y)^2 / (2 sigma^2)) / sum_k exp(-(v_k - y)^2 / (2 sigma^2))      on number tokens
        l_t = -sum_j p_j ln softmax(logits_t)_j                 where the label is a number, else -ln softmax(...)_label

    The softmax is the ordinary one over all V tokens.

    Args:
        tokens: The number tokens and their values.
        vocabulary_size: V.
        sigma: Width of the Gaussian, in units of the values.

    Source: Zausinger et al. 2025, "Regress, Don't Guess", section 4 (baselines).
    """

    def __init__(self, tokens: NumberTokens, vocabulary_size: int, sigma: float) -> None:
        super().__init__(tokens, vocabulary_size)
        if not sigma > 0:
            raise TesseraError(f"sigma is {sigma}; expected a positive width.")
        distance = self.values.double()[:, None] - self.values.double()
        targets = (-distance.square() / (2 * sigma**2)).softmax(-1)
        self.register_buffer("targets", targets.float(), persistent=False)  # (K, K): a row for each label

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the mean over labelled positions, in nats.

        Args:
            logits: (B, T, V).
            labels: (B, T) token ids, negative where nothing is predicted.
        """
        number, place = self.labels(labels)
        log_p = logits.float().log_softmax(-1)
        single = -log_p.gather(-1, labels.clamp(min=0)[..., None])[..., 0]
        spread = -(self.targets[place] * log_p.index_select(-1, self.ids)).sum(-1)
        labelled = labels >= 0
        loss = spread.where(number, single).masked_fill(~labelled, 0)
        return loss.sum() / labelled.sum().clamp(min=1)


def build(tokens: NumberTokens, vocabulary_size: int, sigma: float) -> GaussianLabelSmoothing:
    """Make the loss for a vocabulary, on the CPU."""
    return GaussianLabelSmoothing(tokens, vocabulary_size, sigma)
