"""Drawing bytes from next-byte distributions; temperature and nucleus act on bytes, whatever the tokens are.

Letters: A symbols.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from components.errors import TesseraError
from components.language.byte_stream import ByteModel


class SamplingError(TesseraError):
    """A temperature or a nucleus that no distribution has."""


def reshape(log_probabilities: np.ndarray, temperature: float = 1.0, top_p: float = 1.0) -> np.ndarray:
    """Return P(c)^(1/T), normalised, of the fewest likeliest symbols that hold `top_p` of it; (A,) float64.

    Args:
        log_probabilities: ln P of each symbol, (A,).
        temperature: T; 0 leaves the likeliest symbol alone.
        top_p: Share of the probability that is kept, counted behind the temperature.

    Raises:
        SamplingError: The temperature is negative, or top_p is not in (0, 1].

    Source: nucleus: Holtzman et al. 2020, "The Curious Case of Neural Text Degeneration", section 3.1.
    """
    if temperature < 0 or not 0 < top_p <= 1:
        raise SamplingError(f"temperature {temperature}, top_p {top_p}; expected T >= 0 and 0 < top_p <= 1.")
    if temperature == 0:
        return np.eye(len(log_probabilities))[log_probabilities.argmax()]
    scaled = (log_probabilities - log_probabilities.max()) / temperature
    probabilities = np.exp(scaled)
    probabilities /= probabilities.sum()
    order = np.argsort(-probabilities, kind="stable")
    before = probabilities[order].cumsum() - probabilities[order]
    probabilities[order[before >= top_p]] = 0.0
    return probabilities / probabilities.sum()


def generate(
    model: ByteModel,
    count: int,
    generator: np.random.Generator,
    *,
    temperature: float = 1.0,
    top_p: float = 1.0,
    stop: Callable[[str], bool] = lambda text: False,
) -> str:
    """Continue a text by drawing symbols until it ends.

    Args:
        model: The model behind the prompt; it takes the new symbols.
        count: Most symbols to add.
        generator: Source of randomness.
        temperature: As in `reshape`; 0 is greedy.
        top_p: As in `reshape`.
        stop: Told the new symbols so far, says whether that is enough.

    Returns:
        The new symbols.
    """
    text = ""
    while len(text) < count and not stop(text):
        chosen = int(
            generator.choice(len(model.alphabet) + 1, p=reshape(model.log_probabilities(), temperature, top_p))
        )
        if chosen == len(model.alphabet):
            break
        text += model.alphabet[chosen]
        model.append(model.alphabet[chosen])
    return text
