"""One decoder-only network for text and speech whose frames have several channels, all predicted at once.

    speech to text    S_1 ... S_T <turn> y_1 ... y_L <end>          it predicts y_1 ... y_L <end>
    text to speech    [speaker] y_1 ... y_L <turn> S_1 ... S_T      it predicts S_1 ... S_T, then a frame of ends

    read a frame      shared table     e_t = W [E[S_t1]; ...; E[S_tN]]
                      summed tables    e_t = sum_n E_n[S_tn]
    predict one       in parallel      p(S_t+1 | h_t) = prod_n softmax(W_n h_t)[S_t+1,n]
                      in groups        p(S_t+1 | h_t) = prod_g p(group g | h_t, groups before g)

A shared table knows that levels have one meaning in all channels, the map W knows the channel. In groups, a small
causal transformer goes through the channel groups of a frame, starting from h_t. Text and speech count their places
apart, by rotations of queries and keys, and a learned vector says which of the two a token is.

Letters: `B` sequences, `T` frames, `N` channels, `Q` ids of a channel (levels, then padding, begin, end), `L` text
symbols, `V` symbols of the text's alphabet (then the end), `D` width, `G` groups.

Source: Bai et al. 2024, "dMel: Speech Tokenization made Simple", section 3.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from components.audio.channel_groups import ChannelGroupHead, ParallelHead
from components.errors import TesseraError
from components.nn.rotary import rotary_angles
from components.nn.transformer import KeyValueCache, Transformer, TransformerConfig

IGNORED = -100
"""Target of a place that nothing is predicted for."""
_SPECIALS = 3  # padding, begin, end
_SPEECH, _TEXT, _OTHER = range(3)


class ParallelChannelError(TesseraError):
    """A network of frames was set up, or given something, that it cannot work with."""


class Spoken(NamedTuple):
    """A batch of utterances with their texts.

    Attributes:
        frames: Ids, int64 (B, T, N); anything behind an utterance's end.
        frame_counts: Frames of each utterance, int64 (B,).
        text: Symbols, int64 (B, L); anything behind a text's end.
        text_counts: Symbols of each text, int64 (B,).
        speakers: Vectors of the speakers, float (B, S); None where the network has none.
        hidden_frames: Frames that the network does not see, bool (B, T); None for no such frame.
        hidden_channels: Channels that it does not see, bool (B, N); None for no such channel.
    """

    frames: Tensor
    frame_counts: Tensor
    text: Tensor
    text_counts: Tensor
    speakers: Tensor | None = None
    hidden_frames: Tensor | None = None
    hidden_channels: Tensor | None = None


class ParallelChannelLM(nn.Module):
    """See the module.

    Args:
        channels: N.
        levels: Levels of a channel, special ids not counted.
        text_symbols: V.
        width: D.
        layers: Transformer blocks.
        heads: Attention heads.
        channel_width: Width of an entry of the shared table; 0 for summed tables, one for each channel.
        group_size: Channels that are predicted together; 0 for all of them, in parallel.
        speaker_width: Width of a speaker's vector; 0 for a network that is told no speaker.
        dropout: Share of attention weights and of residual updates dropped in training.

    Attributes:
        padding: Id, in every channel, of what is not there.
        end: Id, in every channel, of the frame behind the last.
    """

    def __init__(
        self,
        *,
        channels: int,
        levels: int,
        text_symbols: int,
        width: int = 96,
        layers: int = 3,
        heads: int = 4,
        channel_width: int = 8,
        group_size: int = 0,
        speaker_width: int = 0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if group_size and not channel_width:
            raise ParallelChannelError("groups of channels are read through the shared table; give a channel_width.")
        if width // heads % 2:
            raise ParallelChannelError(
                f"rotary positions turn pairs of channels, but a head has {width} / {heads} of them; expected even."
            )
        self.channels, self.levels, self.ids = channels, levels, levels + _SPECIALS
        self.padding, self.begin, self.end = range(levels, self.ids)
        self.head_width = width // heads
        self.text_end = text_symbols
        self.turn = text_symbols + 1
        self.summed = channel_width == 0
        if self.summed:
            self.table = nn.Embedding(channels * self.ids, width)
            deviation = (width * channels) ** -0.5
        else:
            self.table = nn.Embedding(self.ids, channel_width)
            self.join = nn.Linear(channels * channel_width, width, bias=False)
            deviation = channel_width**-0.5
        nn.init.normal_(self.table.weight, std=deviation)
        self.hidden_frame = nn.Parameter(torch.randn(width) * width**-0.5)
        self.text_table = nn.Embedding(text_symbols + 2, width)
        self.kinds = nn.Embedding(3, width)
        for table in (self.text_table, self.kinds):
            nn.init.normal_(table.weight, std=width**-0.5)
        self.speaker = nn.Linear(speaker_width, width, bias=False) if speaker_width else None
        self.transformer = Transformer(TransformerConfig(width, layers, heads, causal=True, dropout=dropout))
        self.text_head = nn.Linear(width, text_symbols + 1)
        self.head: nn.Module = (
            ChannelGroupHead(width, channels, self.ids, channel_width, group_size, heads)
            if group_size
            else ParallelHead(width, channels, self.ids)
        )
        self.register_buffer("offsets", torch.arange(channels) * self.ids, persistent=False)

    # What a token is to the network.

    def read_frames(self, frames: Tensor) -> Tensor:
        """Return frames of ids (..., N) as vectors (..., D)."""
        if frames.shape[-1] != self.channels:
            raise ParallelChannelError(f"frames {list(frames.shape)}; expected (..., {self.channels}).")
        if self.summed:
            return self.table(frames + self.offsets).sum(-2)
        return self.join(self.table(frames).flatten(-2))

    def _speech(self, batch: Spoken) -> Tensor:
        frames = batch.frames
        if batch.hidden_channels is not None:
            frames = torch.where(batch.hidden_channels[:, None], self.padding, frames)
        tokens = self.read_frames(frames)
        if batch.hidden_frames is not None:
            tokens = torch.where(batch.hidden_frames[..., None], self.hidden_frame.to(tokens.dtype), tokens)
        return tokens + self.kinds.weight[_SPEECH]

    def _text(self, symbols: Tensor) -> Tensor:
        return self.text_table(symbols) + self.kinds.weight[_TEXT]

    def _turn(self, count: int) -> Tensor:
        return (self.text_table.weight[self.turn] + self.kinds.weight[_OTHER]).expand(count, 1, -1)

    def _angles(self, *places: Tensor) -> Tensor:
        return rotary_angles(
            torch.cat([each.expand(places[0].shape[0], -1) for each in places], 1)[:, None], self.head_width
        )

    # Speech to text.

    def text_loss(self, batch: Spoken) -> Tensor:
        """Return the mean cross entropy of a text symbol or end behind the whole utterance, in nats."""
        logits, labels = self.text_logits(batch), _labels(batch.text, batch.text_counts, self.text_end)
        return F.cross_entropy(logits.float().flatten(0, 1), labels.flatten(), ignore_index=IGNORED)

    def text_logits(self, batch: Spoken) -> Tensor:
        """Return logits (B, L + 1, V + 1) of the text's symbols and its end."""
        hidden = self._after_speech(batch, self._text(batch.text), None)[0]
        return self.text_head(hidden[:, batch.frames.shape[1] :])

    def _after_speech(self, batch: Spoken, text: Tensor | None, cache: KeyValueCache | None) -> tuple[Tensor, Tensor]:
        """Return the hidden vectors of utterances, the turn and texts (B, L, D), and which places are real, (B, T)."""
        count, length = batch.frames.shape[:2]
        device = batch.frames.device
        places = torch.arange(length, device=device)
        present = places < batch.frame_counts[:, None]
        parts = [self._speech(batch), self._turn(count)]
        steps = 1
        if text is not None:
            parts.append(text)
            steps += text.shape[1]
        behind = torch.arange(steps, device=device)
        angles = self._angles(places.expand(count, -1), behind)
        mask = torch.cat([present, present.new_ones(count, steps)], 1)
        return self.transformer(torch.cat(parts, 1), mask=mask[:, None, None], angles=angles, cache=cache), present

    @torch.no_grad()
    def transcribe(self, batch: Spoken, longest: int) -> list[list[int]]:
        """Return the symbols of each utterance's text, always the likeliest one next, at most `longest` of them."""
        count, length = batch.frames.shape[:2]
        cache = KeyValueCache(length + 1 + longest)
        hidden, present = self._after_speech(batch, None, cache)
        written: list[Tensor] = []
        for step in range(longest):
            symbol = self.text_head(hidden[:, -1:]).argmax(-1)
            written.append(symbol)
            if step + 1 == longest:
                break
            place = torch.full((count, 1), step + 1, device=symbol.device)
            mask = torch.cat([present, present.new_ones(count, step + 2)], 1)
            hidden = self.transformer(
                self._text(symbol), mask=mask[:, None, None], angles=self._angles(place), cache=cache
            )
        rows = torch.cat(written, 1).tolist() if written else [[] for _ in range(count)]
        return [row[: row.index(self.text_end)] if self.text_end in row else row for row in rows]

    # Text to speech.

    def speech_loss(self, batch: Spoken) -> Tensor:
        """Return the mean cross entropy of a channel, over channels and frames and the frame of ends, in nats."""
        labels = self.speech_labels(batch)
        logits = self.speech_logits(batch)
        return F.cross_entropy(logits.float().flatten(0, 2), labels.flatten(), ignore_index=IGNORED)

    def speech_labels(self, batch: Spoken) -> Tensor:
        """Return what is predicted, (B, T + 1, N): every frame, then ends in all channels, and nothing behind."""
        places = torch.arange(batch.frames.shape[1] + 1, device=batch.frames.device)
        padded = F.pad(batch.frames, (0, 0, 0, 1), value=IGNORED)
        counts = batch.frame_counts[:, None]
        labels = torch.where((places < counts)[..., None], padded, IGNORED)
        return torch.where((places == counts)[..., None], self.end, labels)

    def speech_logits(self, batch: Spoken) -> Tensor:
        """Return logits (B, T + 1, N, Q) of every frame and of the frame of ends."""
        hidden = self._before_speech(batch, self._speech(batch), None)[0]
        hidden = hidden[:, hidden.shape[1] - batch.frames.shape[1] - 1 :]
        # What stands behind an utterance's end is never read.
        known = F.pad(batch.frames, (0, 0, 0, 1), value=self.end)
        entries = self.table(known) if isinstance(self.head, ChannelGroupHead) else known
        return self.head(hidden.flatten(0, 1), entries.flatten(0, 1)).unflatten(0, hidden.shape[:2])

    def _before_speech(
        self, batch: Spoken, speech: Tensor | None, cache: KeyValueCache | None
    ) -> tuple[Tensor, Tensor]:
        """Return the hidden vectors of speaker, texts, the turn and frames, and which of the former are real."""
        count, length = batch.text.shape
        device = batch.text.device
        places = torch.arange(length, device=device)
        present = places < batch.text_counts[:, None]
        front = [self._text(batch.text), self._turn(count)]
        where = [places.expand(count, -1), places.new_zeros(count, 1)]
        real = [present, present.new_ones(count, 1)]
        if self.speaker is not None:
            if batch.speakers is None:
                raise ParallelChannelError("this network is told the speaker; give vectors (B, S).")
            front.insert(0, (self.speaker(batch.speakers) + self.kinds.weight[_OTHER])[:, None])
            where.insert(0, places.new_zeros(count, 1))
            real.insert(0, present.new_ones(count, 1))
        known = torch.cat(real, 1)
        mask = known
        if speech is not None:
            front.append(speech)
            where.append((torch.arange(speech.shape[1], device=device) + 1).expand(count, -1))
            mask = torch.cat([known, known.new_ones(count, speech.shape[1])], 1)
        # A network without speaker may read an empty text: then its first place is masked, and nothing else is there.
        mask = mask | (torch.arange(mask.shape[1], device=device) == 0)
        hidden = self.transformer(
            torch.cat(front, 1), mask=mask[:, None, None], angles=self._angles(*where), cache=cache
        )
        return hidden, mask[:, : known.shape[1]]

    def _drawn(self, logits: Tensor, temperature: float, generator: torch.Generator) -> Tensor:
        """Draw ids (B, n) from logits (B, n, Q); padding and begin are never drawn."""
        logits = logits.float().clone()
        logits[..., self.padding : self.end] = -torch.inf
        if temperature == 0:
            return logits.argmax(-1)
        law = (logits / temperature).softmax(-1)
        return torch.multinomial(law.flatten(0, 1), 1, generator=generator).view(logits.shape[:2])

    @torch.no_grad()
    def speak(
        self,
        batch: Spoken,
        longest: int,
        generator: torch.Generator,
        *,
        temperature: float = 1.0,
        stop: bool = True,
    ) -> list[Tensor]:
        """Draw the frames of texts, one cached step per frame.

        An utterance ends where most of its channels say so. A channel that says so alone repeats what it had before.

        Args:
            batch: Texts and speakers; its frames are not read.
            longest: Most frames.
            generator: On the network's device.
            temperature: Logits are divided by it; 0 takes the likeliest level.
            stop: Whether utterances end; otherwise all of them have `longest` frames, for timing.

        Returns:
            Levels, int64 (T, N) for each text.
        """
        count = len(batch.text)
        front = batch.text.shape[1] + 1 + (self.speaker is not None)
        cache = KeyValueCache(front + longest)
        hidden, known = self._before_speech(batch, None, cache)
        hidden = hidden[:, -1]
        written: list[Tensor] = []
        ends = torch.full((count,), longest, device=hidden.device)
        before = torch.zeros(count, self.channels, dtype=torch.int64, device=hidden.device)
        for step in range(longest):
            frame = self.head.draw(hidden, lambda logits: self._drawn(logits, temperature, generator), self.table)
            ended = (frame == self.end).sum(1) * 2 > self.channels
            frame = torch.where(frame == self.end, before, frame)
            if stop:
                ends = torch.where(ended & (ends > step), step, ends)
                if bool((ends <= step).all()):
                    break
            written.append(frame)
            if step + 1 == longest:
                break
            before = frame
            place = torch.full((count, 1), step + 1, device=hidden.device)
            mask = torch.cat([known, known.new_ones(count, step + 1)], 1)
            tokens = (self.read_frames(frame) + self.kinds.weight[_SPEECH])[:, None]
            hidden = self.transformer(tokens, mask=mask[:, None, None], angles=self._angles(place), cache=cache)[:, -1]
        made = torch.stack(written, 1) if written else before[:, None][:, :0]
        return [each[:length] for each, length in zip(made, ends.tolist(), strict=True)]


def _labels(text: Tensor, counts: Tensor, end: int) -> Tensor:
    places = torch.arange(text.shape[1] + 1, device=text.device)
    labels = torch.where(places < counts[:, None], F.pad(text, (0, 1), value=IGNORED), IGNORED)
    return torch.where(places == counts[:, None], end, labels)


# A study names this module in its parameters and calls `build` with those of its fields that the signature names.
build = ParallelChannelLM
