"""Conditional denoising of sequences: an encoder-decoder bound to its sources, as samplers and bounds ask for it.

Ids are those of `components.nn.encoder_decoder`: words 0 .. V - 1, then the mask, padding and the start.

Letters: B sequences, S source tokens, N target tokens, P positions asked for, V words, C candidate lengths.

Source: Zheng et al. 2023, "A Reparameterized Discrete Diffusion Model for Text Generation", section 5.1; the best of
several lengths: Ghazvininejad et al. 2019, "Mask-Predict", section 3.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from components.diffusion.length_predictor import LengthPredictor
from components.diffusion.samplers import Sampled
from components.nn.encoder_decoder import EncoderDecoder

SPECIALS = ("mask", "padding", "start")


class SequenceDenoiser(nn.Module):
    """An encoder-decoder and a head for the length of the target.

    Args:
        words: V.
        length_head: Whether there is a head for lengths.
        ends: Whether the end of a target is predicted beside the words, for writing from left to right.
        sizes: Of the `EncoderDecoder`.
    """

    def __init__(
        self, *, words: int, length_head: bool = True, ends: bool = False, **sizes: int | float | bool
    ) -> None:
        super().__init__()
        self.words = words
        self.mask, self.padding, self.start = range(words, words + len(SPECIALS))
        self.network = EncoderDecoder(words=words, special=len(SPECIALS), **sizes)
        self.lengths = (
            LengthPredictor(self.network.embedding.embedding_dim, self.network.context) if length_head else None
        )
        self.end = nn.Linear(self.network.embedding.embedding_dim, 1) if ends else None

    @property
    def vocabulary_size(self) -> int:
        """All ids, special ones included."""
        return self.words + len(SPECIALS)

    def pad(self, sequences: Sequence[Sequence[int]]) -> Tensor:
        """Return sequences as one table, filled up with padding, int64 (B, N)."""
        width = max(map(len, sequences))
        return torch.tensor([[*sequence, *[self.padding] * (width - len(sequence))] for sequence in sequences])

    def present(self, tokens: Tensor) -> Tensor:
        """Return which tokens are no padding, bool."""
        return tokens != self.padding

    def memory(self, source: Tensor) -> Tensor:
        """Encode sources, (B, S) to (B, S, D)."""
        return self.network.encode(source, self.present(source))

    def forward(self, source: Tensor, target: Tensor, memory: Tensor | None = None) -> Tensor:
        """Return logits (B, N, V) of every position of noisy targets (B, N) whose padding is in place."""
        memory = self.memory(source) if memory is None else memory
        return self.network.logits(self.network.hidden(target, self.present(target), memory, self.present(source)))

    def bound_to(self, source: Tensor, lengths: Tensor) -> Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]:
        """Return the denoiser (see `components.diffusion.samplers.Denoiser`) of these sources, which are encoded once.

        Args:
            source: int64 (B, S).
            lengths: Of the targets, int64 (B,).
        """
        memory, memory_present = self.memory(source), self.present(source)

        def denoiser(tokens: Tensor, times: Tensor, rows: Tensor, wanted: Tensor) -> Tensor:
            present = torch.arange(tokens.shape[1], device=tokens.device) < lengths[rows, None]
            hidden = self.network.hidden(tokens, present, memory[rows], memory_present[rows])
            return self.network.logits(hidden.flatten(0, 1)[wanted])

        return denoiser

    def nats(self, source: Tensor, target: Tensor) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
        """Return -ln p of the true tokens, as `components.diffusion.likelihood` asks for it."""
        memory, truth = self.memory(source), target.clamp(max=self.words - 1)

        def cost(noisy: Tensor, masked: Tensor, times: Tensor) -> Tensor:
            logits = self(source, noisy, memory).float()
            return F.cross_entropy(logits.transpose(1, 2), truth, reduction="none")

        return cost

    def blank(self, lengths: Tensor, width: int | None = None) -> tuple[Tensor, Tensor]:
        """Return masks of these lengths, padded, int64 (B, N), and where they are, bool (B, N)."""
        width = int(lengths.max()) if width is None else width
        generated = torch.arange(width, device=lengths.device) < lengths[:, None]
        return torch.where(generated, self.mask, self.padding), generated

    def continued(self, source: Tensor, before: Tensor, memory: Tensor | None = None) -> Tensor:
        """Return logits (B, N, V + 1) of what follows each token: a word, or V for the end (needs `causal`, `ends`).

        Args:
            source: int64 (B, S).
            before: The start and the target's tokens, padding behind, int64 (B, N).
            memory: From `memory`, where there is one already.
        """
        memory = self.memory(source) if memory is None else memory
        hidden = self.network.hidden(before, self.present(before), memory, self.present(source))
        return torch.cat([self.network.logits(hidden), self.end(hidden)], -1)

    @torch.no_grad()
    def continue_greedily(self, source: Tensor, width: int) -> Sampled:
        """Write targets from left to right, each time the likeliest word, until the end is likeliest.

        Args:
            source: int64 (B, S).
            width: N, most tokens of a target.

        Returns:
            Targets, padded; calls and positions count the end where it was predicted.
        """
        memory = self.memory(source)
        target = torch.full((len(source), width + 1), self.padding, device=source.device)
        target[:, 0] = self.start
        scores = torch.zeros(len(source), width, device=source.device)
        calls = torch.zeros(len(source), dtype=torch.int64, device=source.device)
        writing = torch.ones(len(source), dtype=torch.bool, device=source.device)
        for place in range(width):
            calls += writing
            best, word = self.continued(source, target[:, : place + 1], memory)[:, -1].float().log_softmax(-1).max(-1)
            writing = writing & (word < self.words)
            target[:, place + 1] = torch.where(writing, word, self.padding)
            scores[:, place] = best.masked_fill(~writing, 0)
            if not bool(writing.any()):
                break
        return Sampled(target[:, 1:], scores, calls, calls.clone())


@torch.no_grad()
def best_of_lengths(
    sample: Callable[[Tensor, Tensor], Sampled], model: SequenceDenoiser, source: Tensor, beam: int
) -> Sampled:
    """Decode the `beam` likeliest lengths of each source and keep the candidate with the best mean score.

    Args:
        sample: `(sources (B, S), lengths (B,)) -> Sampled`.
        model: Its length head names the candidates.
        source: int64 (B, S).
        beam: C.

    Returns:
        The kept candidates; calls and positions are those of all candidates together.
    """
    candidates = model.lengths.candidates(model.memory(source), model.present(source), beam)
    batch = len(source)
    sampled = sample(source.repeat_interleave(beam, 0), candidates.reshape(-1))
    mean = (sampled.scores.sum(1) / candidates.reshape(-1)).view(batch, beam)
    kept = mean.argmax(1) + torch.arange(batch, device=source.device) * beam
    return Sampled(
        sampled.tokens[kept],
        sampled.scores[kept],
        sampled.calls.view(batch, beam).sum(1),
        sampled.positions.view(batch, beam).sum(1),
    )


def build(**arguments: int | float | bool) -> SequenceDenoiser:
    """Build the network; arguments as for `SequenceDenoiser`."""
    return SequenceDenoiser(**arguments)
