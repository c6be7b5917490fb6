"""A sequence-to-sequence recogniser: an encoder reads frames or tokens, a decoder writes tokens, attending to it.

    source -- embedding, or linear map of stacked frames -- + position -- encoder -- memory
    <start> y_1 ... y_n -- embedding + position -- decoder (causal, attends to memory) -- logits of y_1 ... y_n <end>

The decoder can be told early in training that speech and text run in parallel: guided attention charges weight that
lies far from the diagonal,

    W[n, s] = 1 - exp(-(n / N - s / S)^2 / (2 g^2)),    L = mean over n of sum_s A[n, s] W[n, s]

Letters: `B` sequences, `S` source places, `N` target tokens, `D` width, `H` heads, `V` target tokens of the vocabulary
(then the end; the start is read only), `M` channels of a frame, `W` beams.

Sources: Vaswani et al. 2017 (the network, sinusoidal positions); Tachibana, Uenoyama and Aihara 2018, "Efficiently
Trainable Text-to-Speech System Based on Deep Convolutional Networks with Guided Attention", section 4.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from components.errors import TesseraError
from components.nn.transformer import KeyValueCache, Transformer, TransformerConfig

IGNORED = -100
"""Target of a place that is no token."""


class Seq2SeqError(TesseraError):
    """A network was set up, or asked to write, in a way that has no meaning."""


class Seq2Seq(nn.Module):
    """See the module.

    Args:
        targets: V.
        source_tokens: Tokens of the source's vocabulary; None where it is frames.
        source_channels: M; None where the source is tokens.
        stack: Frames that are read as one.
        width: D.
        encoder_layers: Blocks of the encoder.
        decoder_layers: Blocks of the decoder.
        heads: H.
        feed_forward: Hidden channels of the MLPs.
        dropout: Share of attention weights and of residual updates dropped in training.

    Attributes:
        end: Token that is written behind the last one.
        start: Token that is read before the first one.
    """

    def __init__(
        self,
        *,
        targets: int,
        source_tokens: int | None = None,
        source_channels: int | None = None,
        stack: int = 1,
        width: int = 128,
        encoder_layers: int = 2,
        decoder_layers: int = 2,
        heads: int = 4,
        feed_forward: int = 512,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        if (source_tokens is None) == (source_channels is None):
            raise Seq2SeqError("Give exactly one of source_tokens and source_channels.")
        self.stack, self.end, self.start = stack, targets, targets + 1
        if source_tokens is not None:
            self.read: nn.Module = nn.Embedding(source_tokens, width)
            nn.init.normal_(self.read.weight, std=width**-0.5)
        else:
            self.read = nn.Linear(stack * source_channels, width)
        self.embedding = nn.Embedding(targets + 2, width)
        nn.init.normal_(self.embedding.weight, std=width**-0.5)
        ratio = feed_forward / width
        self.encoder = Transformer(TransformerConfig(width, encoder_layers, heads, ratio, dropout=dropout))
        self.decoder = Transformer(
            TransformerConfig(width, decoder_layers, heads, ratio, True, dropout=dropout, context_width=width)
        )
        self.output = nn.Linear(width, targets + 1)

    def memory(self, source: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return the memory (B, S, D) and which of its places are real, bool (B, S).

        Args:
            source: Tokens int64 (B, S), or frames (B, F, M) with S = ceil(F / stack).
            lengths: Tokens or frames of each source, int64 (B,).
        """
        if source.dim() == 3:
            places = torch.arange(source.shape[1], device=source.device)
            source = source.masked_fill((places >= lengths[:, None])[..., None], 0.0)
            source = F.pad(source, (0, 0, 0, -source.shape[1] % self.stack))
            source = source.unflatten(1, (-1, self.stack)).flatten(2)
            lengths = (lengths + self.stack - 1) // self.stack
        present = torch.arange(source.shape[1], device=source.device) < lengths[:, None]
        tokens = self._placed(self.read(source), 0)
        return self.encoder(tokens, mask=present[:, None, None]), present

    def forward(self, source: Tensor, lengths: Tensor, target: Tensor) -> Tensor:
        """Return logits (B, N + 1, V + 1) of y_1 ... y_N and the end; targets (B, N) may be padded with any token."""
        memory, present = self.memory(source, lengths)
        return self.logits(self._started(target), memory, present)

    def logits(self, tokens: Tensor, memory: Tensor, present: Tensor, cache: KeyValueCache | None = None) -> Tensor:
        """Return logits (B, N, V + 1) behind each token (B, N) that the decoder reads, the start first."""
        placed = self._placed(self.embedding(tokens), 0 if cache is None else cache.length)
        hidden = self.decoder(placed, context=memory, context_mask=present[:, None, None], cache=cache)
        return self.output(hidden)

    def loss(
        self,
        source: Tensor,
        lengths: Tensor,
        target: Tensor,
        target_lengths: Tensor,
        *,
        smoothing: float = 0.1,
        guided: float | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return cross entropy a token, nats, and the guided-attention loss of half the heads of the last layer.

        Args:
            source: As for `memory`.
            lengths: As for `memory`.
            target: int64 (B, N), padded with any token.
            target_lengths: int64 (B,).
            smoothing: Share of the label's probability that is spread evenly over all tokens.
            guided: g, the width of the diagonal; None for no second loss (0 is returned).
        """
        memory, present = self.memory(source, lengths)
        read, labels = self._started(target), self._labels(target, target_lengths)
        if guided is None:
            logits, charge = self.logits(read, memory, present), memory.new_zeros(())
        else:
            with _watched(self.decoder.blocks[-1].cross_attention) as seen:
                logits = self.logits(read, memory, present)
            charge = guided_attention_loss(*seen[0], present, labels != IGNORED, guided)
        flat = logits.float().flatten(0, 1)
        return F.cross_entropy(flat, labels.flatten(), ignore_index=IGNORED, label_smoothing=smoothing), charge

    @torch.no_grad()
    def greedy(self, source: Tensor, lengths: Tensor, longest: int) -> list[list[int]]:
        """Return the tokens written by always taking the likeliest one, at most `longest` of them."""
        return self.beam(source, lengths, longest, beams=1)[0]

    @torch.no_grad()
    def beam(self, source: Tensor, lengths: Tensor, longest: int, *, beams: int) -> tuple[list[list[int]], Tensor]:
        """Return the best of `beams` sequences of each source by the sum of log probabilities, and this sum (B,).

        Raises:
            Seq2SeqError: There is no beam.
        """
        if beams < 1:
            raise Seq2SeqError(f"beams is {beams}; expected at least 1.")
        memory, present = self.memory(source, lengths)
        count = len(memory)
        memory, present = memory.repeat_interleave(beams, 0), present.repeat_interleave(beams, 0)
        cache = _BeamCache(longest + 1)
        scores = memory.new_full((count, beams), -math.inf, dtype=torch.float32)
        scores[:, 0] = 0.0
        tokens = torch.full((count * beams, 1), self.start, device=memory.device)
        written = tokens.new_zeros(count, beams, 0)
        done = torch.zeros(count, beams, dtype=torch.bool, device=memory.device)
        for step in range(longest + 1):
            law = self.logits(tokens, memory, present, cache)[:, -1].float().log_softmax(-1).unflatten(0, (count, -1))
            if step == longest:
                # No room for another token: what is not done ends here.
                stop = torch.full_like(law, -math.inf)
                stop[..., self.end] = law[..., self.end]
                law = stop
            ended = torch.full_like(law, -math.inf)
            ended[..., self.end] = 0.0
            law = torch.where(done[..., None], ended, law)
            scores, chosen = (scores[..., None] + law).flatten(1).topk(beams, dim=1)
            parent, token = chosen // law.shape[-1], chosen % law.shape[-1]
            written = written.gather(1, parent[..., None].expand(-1, -1, written.shape[2]))
            written = torch.cat([written, token[..., None]], 2)
            done = done.gather(1, parent) | (token == self.end)
            if bool(done.all()):
                break
            cache.reorder((torch.arange(count, device=parent.device)[:, None] * beams + parent).flatten())
            tokens = token.flatten()[:, None]
        best = scores.argmax(1)
        rows = written[torch.arange(count, device=best.device), best].tolist()
        return [row[: row.index(self.end)] if self.end in row else row for row in rows], scores.amax(1)

    def _started(self, target: Tensor) -> Tensor:
        return F.pad(target, (1, 0), value=self.start)

    def _labels(self, target: Tensor, lengths: Tensor) -> Tensor:
        """Return what is predicted, (B, N + 1): the tokens, the end, and nothing behind it."""
        padded = F.pad(target, (0, 1), value=IGNORED)
        places = torch.arange(padded.shape[1], device=target.device)
        labels = torch.where(places < lengths[:, None], padded, IGNORED)
        return torch.where(places == lengths[:, None], self.end, labels)

    def _placed(self, tokens: Tensor, first: int) -> Tensor:
        return tokens + sinusoids(tokens.shape[1], tokens.shape[2], first, tokens.device).to(tokens.dtype)


class _BeamCache(KeyValueCache):
    """A cache whose rows follow the beams that go on."""

    def reorder(self, rows: Tensor) -> None:
        """Put the tokens of row rows[i] into row i; the context is the same for all beams of a source."""
        for layer, pair in self._tokens.items():
            self._tokens[layer] = tuple(store.index_select(0, rows) for store in pair)


@contextlib.contextmanager
def _watched(attention: nn.Module) -> Iterator[list[tuple[Tensor, Tensor]]]:
    """Collect queries (B, H, N, C) and keys (B, H, S, C) of an attention's calls inside the block."""
    seen: list[tuple[Tensor, Tensor]] = []
    handle = attention.register_forward_pre_hook(lambda _, given: seen.append((given[0], given[1])))
    try:
        yield seen
    finally:
        handle.remove()


def guided_attention_loss(queries: Tensor, keys: Tensor, present: Tensor, written: Tensor, width: float) -> Tensor:
    """Return the mean charge of the first half of the heads for attending far from the diagonal, from 0 to 1.

    Args:
        queries: (B, H, N, C).
        keys: (B, H, S, C).
        present: Real places of the source, bool (B, S).
        written: Real places of the target, bool (B, N).
        width: g.
    """
    half = max(1, queries.shape[1] // 2)
    scores = (queries[:, :half].float() @ keys[:, :half].float().transpose(-1, -2)) / math.sqrt(queries.shape[-1])
    weights = scores.masked_fill(~present[:, None, None], -math.inf).softmax(-1)
    rows, columns = (_shares(each) for each in (written, present))
    charge = 1 - torch.exp(-((rows[:, :, None] - columns[:, None]).square()) / (2 * width**2))
    per_token = (weights * charge[:, None]).sum(-1)  # a mean over the source, weighted by attention
    counted = written[:, None].float().expand_as(per_token)
    return (per_token * counted).sum() / counted.sum().clamp(min=1)


def _shares(present: Tensor) -> Tensor:
    """Return each place over the number of real places, (B, T)."""
    return torch.arange(present.shape[1], device=present.device) / present.sum(1, keepdim=True).clamp(min=1)


def sinusoids(count: int, width: int, first: int, device: torch.device) -> Tensor:
    """Return sines and cosines of places first ... first + count - 1, (count, width): any length has its positions."""
    places = torch.arange(first, first + count, device=device, dtype=torch.float32)
    rates = 10_000 ** (-torch.arange(0, width, 2, device=device, dtype=torch.float32) / width)
    angles = places[:, None] * rates
    # At the scale of an embedding, whose entries have variance 1 / width.
    return torch.stack([angles.sin(), angles.cos()], -1).flatten(1)[:, :width] * (2 / width) ** 0.5


def padded_tokens(sequences: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Return sequences as a table filled up with token 0, int64 (B, N), and their lengths (B,)."""
    width = max(1, max(map(len, sequences)))
    rows = [[*sequence, *[0] * (width - len(sequence))] for sequence in sequences]
    return torch.tensor(rows), torch.tensor([len(sequence) for sequence in sequences])


# A study names this module in its parameters and calls `build` with those of its fields that the signature names.
build = Seq2Seq
