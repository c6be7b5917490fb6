"""Any-order models whose law is known in closed form."""

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor

from components.language.any_order import Order, joint_nats
from components.nn.two_stream_transformer import TwoStreamConfig, TwoStreamTransformer


def random_model(vocabulary: int, context: int, seed: int = 0, sharpness: float = 1.2) -> TwoStreamTransformer:
    """An untrained network whose predictions are far from uniform and depend on what they see."""
    torch.manual_seed(seed)
    model = TwoStreamTransformer(TwoStreamConfig(vocabulary, context, 16, 2, 2))
    with torch.no_grad():
        model.embedding.weight.mul_(50 * sharpness)
        model.query.mul_(50)
    return model.eval()


class Independent:
    """Every position has a law of its own, whatever is known."""

    def __init__(self, logits: Tensor) -> None:
        self.logits = logits  # (N, V)
        self.vocabulary_size = self.mask_token_id = logits.shape[1]

    def __call__(self, tokens: Tensor, content: Tensor, query: Tensor, queries: Tensor | None = None) -> Tensor:
        if queries is None:
            return self.logits.expand(len(tokens), -1, -1)
        return self.logits[queries]


class AllEqual:
    """The first token is uniform, and every other one is what most of the known ones are."""

    def __init__(self, vocabulary: int) -> None:
        self.vocabulary_size = self.mask_token_id = vocabulary

    def __call__(self, tokens: Tensor, content: Tensor, query: Tensor, queries: Tensor | None = None) -> Tensor:
        kinds = F.one_hot(tokens.clamp(max=self.vocabulary_size), self.vocabulary_size + 1)[..., :-1].float()
        return 30 * (query.float() @ kinds)


def completions(tokens: Tensor, order: Order, vocabulary: int) -> Tensor:
    """All texts that agree with the prompt of the one text given, (V^masked, N)."""
    masked = order.masked[0].nonzero()[:, 0]
    fillings = torch.tensor(list(itertools.product(range(vocabulary), repeat=len(masked))))
    texts = tokens.expand(len(fillings), -1).clone()
    texts[:, masked] = fillings
    return texts


def enumerated(model, tokens: Tensor, order: Order, vocabulary: int) -> tuple[Tensor, Tensor]:
    """All completions of one text and the probability of each by the oracle pass, float64."""
    texts = completions(tokens, order, vocabulary)
    orders = Order(order.ranks.expand(len(texts), -1), order.prompt.expand(len(texts)))
    with torch.no_grad():
        return texts, (-joint_nats(model, texts, orders).double().sum(1)).exp()
