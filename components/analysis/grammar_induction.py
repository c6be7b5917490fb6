"""Grammar induction by a compound probabilistic context-free grammar: can a grammar explain a stream of tokens?

    z ~ N(0, I)            one latent per sentence
    S -> A                 prob. softmax_A  u_A . f_S([w_S; z])
    A -> B C               prob. softmax_BC u_BC . [w_A; z] + b_BC
    P -> w                 prob. softmax_w  u_w . f_P([w_P; z])

Given z the grammar is context-free, so p(sentence | z) is the inside algorithm's; over z the bound is

    log p(sentence) >= E_q(z | sentence) log p(sentence | z) - KL(q(z | sentence) || N(0, I)).

Letters: `B` sentences, `n` tokens of a sentence, `N` nonterminals, `P` preterminals, `M = N + P`, `V` tokens of the
vocabulary, `Z` latent width, `D` width of embeddings.

Source: Kim, Dyer and Rush 2019, "Compound Probabilistic Context-Free Grammars for Grammar Induction", sections 2-3.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from components.analysis.grammar_inside import GrammarError, Rules, TreeShapes, best_spans, expected_counts, inside
from components.language.count_models import UnigramCounts


class CompoundPCFG(nn.Module):
    """A neural grammar whose rule probabilities depend on a latent of the sentence, and q(z | sentence).

    Args:
        vocabulary_size: V.
        nonterminals: N.
        preterminals: P.
        latent_dim: Z.
        hidden: D, also the width of q's recurrent network in each direction.
    """

    def __init__(
        self, vocabulary_size: int, *, nonterminals: int, preterminals: int, latent_dim: int, hidden: int
    ) -> None:
        super().__init__()
        self.vocabulary_size, self.latent_dim = vocabulary_size, latent_dim
        self.nonterminals, self.preterminals = nonterminals, preterminals
        symbols = nonterminals + preterminals
        self.start = nn.Parameter(torch.randn(1, hidden))
        self.left_sides = nn.Parameter(torch.randn(nonterminals, hidden))
        self.emitters = nn.Parameter(torch.randn(preterminals, hidden))
        self.root = nn.Sequential(_residual_network(hidden + latent_dim, hidden), nn.Linear(hidden, nonterminals))
        self.binary = nn.Linear(hidden + latent_dim, symbols * symbols)
        self.emission = nn.Sequential(
            _residual_network(hidden + latent_dim, hidden), nn.Linear(hidden, vocabulary_size)
        )
        self.embedding = nn.Embedding(vocabulary_size, hidden)
        self.reader = nn.LSTM(hidden, hidden, batch_first=True, bidirectional=True)
        self.posterior = nn.Linear(2 * hidden, 2 * latent_dim)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)

    def rules(self, tokens: Tensor, latents: Tensor) -> Rules:
        """Return the rules of sentences (B, n) under latents (B, Z)."""
        batch = len(tokens)
        root = self.root(_beside(self.start, latents)).squeeze(1).log_softmax(-1)
        binary = self.binary(_beside(self.left_sides, latents)).log_softmax(-1)
        emission = self.emission(_beside(self.emitters, latents)).log_softmax(-1)
        places = tokens.unsqueeze(1).expand(-1, self.preterminals, -1)
        symbols = self.nonterminals + self.preterminals
        return Rules(
            root, binary.view(batch, self.nonterminals, symbols, symbols), emission.gather(2, places).transpose(1, 2)
        )

    def encode(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log variance of q(z | sentence), each (B, Z), of sentences (B, n)."""
        states, _ = self.reader(self.embedding(tokens))
        mean, log_variance = self.posterior(states.amax(1)).chunk(2, -1)
        return mean, log_variance

    def bound(self, tokens: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Return log p(sentence | z) and KL(q || prior), each (B,) in nats, at z = mean + deviation * noise.

        Args:
            tokens: Sentences, (B, n).
            noise: Standard normal, (B, Z).
        """
        mean, log_variance = self.encode(tokens)
        latents = mean + (log_variance / 2).exp() * noise
        divergence = (mean.square() + log_variance.exp() - 1 - log_variance).sum(-1) / 2
        return inside(self.rules(tokens, latents)), divergence


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


def _residual_network(width_in: int, width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width_in, width), _Residual(width), _Residual(width))


def _beside(symbols: Tensor, latents: Tensor) -> Tensor:
    """Put each sentence's latent (B, Z) beside every symbol's embedding (A, D), (B, A, D + Z)."""
    batch, count = len(latents), len(symbols)
    return torch.cat((symbols.expand(batch, -1, -1), latents.unsqueeze(1).expand(-1, count, -1)), -1)


def grammar_loss(model: CompoundPCFG, tokens: Tensor, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the negative bound in nats per token, averaged over sentences (B, n), and its KL part.

    Matches what `components.training.loop.fit` asks of a loss.
    """
    noise = torch.randn(len(tokens), model.latent_dim, generator=generator, device=tokens.device)
    # Sums of products of small probabilities lose too much in half precision.
    with torch.autocast(tokens.device.type, enabled=False):
        likelihood, divergence = model.bound(tokens, noise)
    n = tokens.shape[1]
    return (divergence - likelihood).mean() / n, {"kl": divergence.detach().mean() / n}


@torch.no_grad()
def sentence_nats(
    model: CompoundPCFG, sentences: Tensor, generator: torch.Generator, *, samples: int = 4, batch: int = 128
) -> Tensor:
    """Return the negative bound of each sentence, averaged over draws of z, float64 (B,) nats on the CPU.

    Args:
        model: The grammar.
        sentences: (B, n), on any device.
        generator: Source of the draws, on the CPU, so that every device sees the same.
        samples: Draws of z for each sentence.
        batch: Sentences computed at once.
    """
    device = model.start.device
    found = []
    for part in sentences.split(batch):
        part = part.to(device)
        total = torch.zeros(len(part), device=device)
        for _ in range(samples):
            noise = torch.randn(len(part), model.latent_dim, generator=generator).to(device)
            likelihood, divergence = model.bound(part, noise)
            total += divergence - likelihood
        found.append(total / samples)
    return torch.cat(found).double().cpu()


def relative_gain(model_nats: Tensor, unigram_nats: Tensor, tokens: int) -> float:
    """Return by how many percent a model's perplexity is below the unigram model's, `100 (1 - PPL / PPL_unigram)`.

    Args:
        model_nats: Nats of each sentence under the model, (B,).
        unigram_nats: Nats of the same sentences under the unigram model, (B,).
        tokens: n.
    """
    return 100 * -float(torch.expm1((model_nats - unigram_nats).mean() / tokens))


def gain_rows(model_nats: Tensor, unigram_nats: Tensor, tokens: int) -> Tensor:
    """Return one number per sentence whose mean is `relative_gain` and whose spread is its sampling error, (B,).

    To first order in the draw of sentences: gain + 100 exp(m) (m - d_i), with d_i a sentence's difference in nats per
    token and m their mean (the infinitesimal jackknife).
    """
    differences = (model_nats - unigram_nats) / tokens
    mean = differences.mean()
    return 100 * (-torch.expm1(mean) + mean.exp() * (mean - differences))


@dataclass(frozen=True)
class GrammarShape:
    """What an induced grammar looks like on sentences.

    Attributes:
        rules_for_95: Share of the N M^2 binary rules that carry 95% of all expected uses.
        trees: Shapes of the most probable trees.
    """

    rules_for_95: float
    trees: TreeShapes


@torch.no_grad()
def grammar_shape(model: CompoundPCFG, sentences: Tensor, *, batch: int = 64) -> GrammarShape:
    """Describe the rules and trees that a grammar uses on sentences (B, n), at the mean of q(z | sentence)."""
    device = model.start.device
    uses, shapes = 0.0, []
    for part in sentences.split(batch):
        part = part.to(device)
        rules = model.rules(part, model.encode(part)[0])
        uses = uses + expected_counts(rules).sum(0).double()
        shapes.append(TreeShapes.of(best_spans(rules)))
    shares = (uses.flatten() / uses.sum()).sort(descending=True).values.cumsum(0)
    needed = int((shares < 0.95).sum()) + 1
    trees = (torch.cat([getattr(shape, name) for shape in shapes]) for name in TreeShapes.__dataclass_fields__)
    return GrammarShape(min(needed, len(shares)) / len(shares), TreeShapes(*trees))


class WatchedGrammar(nn.Module):
    """A grammar in training, and its gain over the unigram model on held-out sentences, looked at now and then.

    The gains are a buffer, so that a resumed training keeps what was seen.

    Args:
        model: The grammar.
        held_out: Sentences to look at, (B, n).
        unigram: Model of independent tokens fitted to the training sentences.
        every: Steps between two looks.
        steps: Steps in all.
    """

    def __init__(self, model: CompoundPCFG, held_out: Tensor, unigram: UnigramCounts, every: int, steps: int) -> None:
        super().__init__()
        self.model, self.every = model, every
        self._held_out, self._unigram_nats = held_out, unigram.nats(held_out).sum(1)
        self.register_buffer("gains", torch.zeros(steps // every, dtype=torch.float64))

    def look(self, done: int) -> None:
        """Measure the gain after `done` steps, where it is time."""
        if done % self.every == 0:
            nats = sentence_nats(self.model, self._held_out, torch.Generator().manual_seed(done), samples=1)
            gain = relative_gain(nats, self._unigram_nats, self._held_out.shape[1])
            self.gains[done // self.every - 1] = gain


def windows_of(documents: list[Tensor], length: int) -> tuple[Tensor, Tensor]:
    """Cut documents into sentences of one length; what is left over at the end of a document is dropped.

    Args:
        documents: Tokens of each document, (T,) each.
        length: n.

    Returns:
        Sentences (B, n) and the document of each, int64 (B,).

    Raises:
        GrammarError: No document is long enough.
    """
    cut = [document[: len(document) // length * length].view(-1, length) for document in documents]
    sentences = torch.cat(cut) if cut else torch.empty(0, length, dtype=torch.int64)
    if not len(sentences):
        raise GrammarError(f"none of {len(documents)} documents has {length} tokens; expected longer ones.")
    return sentences, torch.repeat_interleave(torch.tensor([len(part) for part in cut]))


def shuffled(sentences: Tensor, generator: torch.Generator) -> Tensor:
    """Return the sentences (B, n) with the tokens of each in random order."""
    order = torch.rand(sentences.shape, generator=generator, device=generator.device).argsort(1)
    return sentences.gather(1, order.to(sentences.device))


# A description of a model names this module and calls `build` with its arguments.
build = CompoundPCFG
