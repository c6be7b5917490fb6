"""Markov sources of tokenization theory: switching processes, Dirichlet chains, long texts, and their entropies.

Letters: A characters, k order, S = A^k states, N characters of a text, B stretches of it, r block length.
"""

from __future__ import annotations

import numpy as np

from components.data.markov import Chain, ChainError

_STRETCH = 2000


def switching_chain(order: int, p: float, q: float, alphabet: str = "01") -> Chain:
    """Return the order-k switching process, k interleaved copies of one two-state chain.

        P(x_n = 1 | x_n-k = 0) = p,   P(x_n = 0 | x_n-k = 1) = q

    Args:
        order: k.
        p: Probability that 1 follows 0 (k places later), in (0, 1).
        q: Probability that 0 follows 1.
        alphabet: The two characters, 0 first.

    Raises:
        ChainError: p or q is outside (0, 1), or the alphabet has not two characters.

    Source: Makkuva et al. 2024, "Attention with Markov" (arXiv 2402.04161), for k = 1; Rajaraman et al. 2024,
    "Toward a Theory of Tokenization in LLMs" (arXiv 2404.08335), for k > 1.
    """
    if len(alphabet) != 2 or not (0 < p < 1 and 0 < q < 1):
        raise ChainError(
            f"switching_chain(p={p}, q={q}, alphabet={alphabet!r}): expected probabilities between 0 and 1 and two "
            "characters."
        )
    # The first of the last k characters decides.
    oldest = np.arange(2**order) // 2 ** (order - 1)
    return Chain(alphabet, order, np.array([[1 - p, p], [q, 1 - q]])[oldest])


def dirichlet_chain(seed: int, order: int, floor: float, alphabet: str = "01") -> Chain:
    """Draw a general chain: every row from Dirichlet(1), then moved off zero, `delta + (1 - A delta) row`.

    Args:
        seed: Equal seeds give equal chains.
        order: k.
        floor: delta, the least probability of a character: the constant of the paper's bounds.
        alphabet: Characters in ascending order.

    Raises:
        ChainError: The floor is not positive or too high for the alphabet.
    """
    size = len(alphabet)
    if not 0 < floor * size < 1:
        raise ChainError(f"floor is {floor} with {size} characters; expected more than 0 and less than 1 / {size}.")
    rows = np.random.default_rng([seed, 0xD181]).dirichlet(np.ones(size), size=size**order)
    return Chain(alphabet, order, floor + (1 - size * floor) * rows)


def sample_text(chain: Chain, length: int, generator: np.random.Generator) -> np.ndarray:
    """Draw one long stationary text.

    All stretches of the text run at once, each from every state with the same random numbers; which of the runs is
    the text follows from where the stretch before it ended.

    Args:
        chain: The chain.
        length: N, at least k.
        generator: Source of randomness; equal states give equal texts.

    Returns:
        Character indices, (N,) uint8.

    Raises:
        ChainError: The text is shorter than a state.
    """
    size, order, states = len(chain.alphabet), chain.order, len(chain.transitions)
    if length < order:
        raise ChainError(f"A text of {length} characters holds no state of an order-{order} chain.")
    start = int(generator.choice(states, p=chain.stationary))
    head = start // size ** np.arange(order - 1, -1, -1) % size
    rest = length - order
    steps = min(_STRETCH, max(1, rest))
    stretches = -(-rest // steps)
    bounds = np.cumsum(chain.transitions, axis=1)[:, :-1]  # [S, A - 1]
    draws = generator.random((steps, stretches))
    state = np.tile(np.arange(states), (stretches, 1))  # [B, S]
    letters = np.empty((steps, stretches, states), np.uint8)
    for step in range(steps):
        letter = (draws[step][:, None, None] >= bounds[state]).sum(-1)
        letters[step] = letter
        state = (state * size + letter) % states
    text = np.empty((stretches, steps), np.uint8)
    for stretch in range(stretches):
        text[stretch] = letters[:, stretch, start]
        start = int(state[stretch, start])
    return np.concatenate([head.astype(np.uint8), text.ravel()[:rest]])


def text_log_probability(chain: Chain, codes: np.ndarray) -> float:
    """Return ln P(a long text begins with these characters), (N,) with N >= k: the loss of the source itself.

    As `chain.log_probability` of one string, without a step for every character.

    Raises:
        ChainError: The text is shorter than a state.
    """
    if len(codes) < chain.order:
        raise ChainError(f"A text of {len(codes)} characters holds no state of an order-{chain.order} chain.")
    size, count = len(chain.alphabet), len(codes) - chain.order
    state = np.zeros(count + 1, np.int64)
    for offset in range(chain.order):
        state = state * size + codes[offset : count + 1 + offset]
    steps = np.log(chain.transitions)[state[:-1], codes[chain.order :]]
    return float(np.log(chain.stationary[state[0]]) + steps.sum())


def character_entropy(chain: Chain) -> float:
    """Return the entropy of one character, H(pi), in nats: the loss of the best unigram model of characters."""
    return _entropy(chain.character_frequencies)


def block_entropy(chain: Chain, length: int) -> float:
    """Return the entropy of r characters in a row, H(X_1 .. X_r), in nats.

        r >= k:  H(state) + (r - k) H_inf,      r < k:  the entropy of the state's first r characters

    Divided by r it is the loss of the best unigram model of blocks of length r; for k = 1 that is
    `(H(pi) + (r - 1) H_inf) / r`.

    Raises:
        ChainError: The block has no character.
    """
    if length < 1:
        raise ChainError(f"A block has {length} characters; expected at least 1.")
    if length >= chain.order:
        return _entropy(chain.stationary) + (length - chain.order) * chain.entropy_rate()
    ends = chain.stationary.reshape(-1, len(chain.alphabet) ** (chain.order - length))
    return _entropy(ends.sum(1))


def _entropy(probabilities: np.ndarray) -> float:
    positive = probabilities[probabilities > 0]
    return float(-(positive * np.log(positive)).sum())
