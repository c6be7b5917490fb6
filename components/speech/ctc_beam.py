"""Prefix beam search: the most likely transcript of a CTC recogniser, over all strings or over words of a lexicon.

Each beam holds a prefix with the probability of its alignments that end in a blank and of those that end in its last
label; alignments of one prefix are summed, not maximised. With a lexicon a prefix walks a trie of spelled words and is
scored, at each word's end, by a language model:

    score(y) = ln p_CTC(y | x) + alpha sum_i ln p(w_i | w_{i-2}, w_{i-1}) + beta |w|

All utterances and beams advance together, one tensor step per frame; equal prefixes are found by a rolling hash.

Letters: `B` utterances, `T` frames, `K` labels with blank 0, `W` beams, `Q` nodes of the trie.

Source: Hannun et al. 2014, "First-Pass Large Vocabulary Continuous Speech Recognition using Bi-Directional Recurrent
DNNs", algorithm 1; Graves and Jaitly 2014, section 4.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from components.errors import TesseraError
from components.language.word_trigram import WordTrigram
from components.speech.ctc import BLANK

_MULTIPLIER = 6364136223846793005  # of Knuth's MMIX generator; the hash wraps at 2^64
_ROOT = 0
_OFF = -math.inf
_UNFINISHED = -1e6  # a prefix that stops inside a word loses to every one that does not


class BeamSearchError(TesseraError):
    """A beam search was set up in a way that has no meaning."""


@dataclass(frozen=True)
class Lexicon:
    """A trie of the words that a transcript may hold.

    Attributes:
        words: In the order of their ids, which are the language model's.
        space: Label between words.
        following: Node after a node and a label, -1 where no word goes on so, int64 (Q, K).
        spelled: Word that ends at a node, -1 where none does, int64 (Q,).
    """

    words: tuple[str, ...]
    space: int
    following: Tensor
    spelled: Tensor

    @classmethod
    def of(cls, words: Sequence[str], labels: dict[str, int]) -> Lexicon:
        """Build the trie of words over `labels`, which name each character's label and that of the space.

        Raises:
            BeamSearchError: A word is empty, occurs twice or has a character without a label.
        """
        size = max(labels.values()) + 1
        following, spelled = [[-1] * size], [-1]
        for place, word in enumerate(words):
            node = _ROOT
            for character in word:
                if character not in labels or character == " ":
                    raise BeamSearchError(f"word {word!r}: {character!r} is no letter of {''.join(sorted(labels))!r}.")
                if following[node][labels[character]] < 0:
                    following[node][labels[character]] = len(following)
                    following.append([-1] * size)
                    spelled.append(-1)
                node = following[node][labels[character]]
            if node == _ROOT or spelled[node] >= 0:
                raise BeamSearchError(
                    f"word {word!r} is {'empty' if not word else 'there twice'}; give each word once."
                )
            spelled[node] = place
        for node, word in enumerate(spelled):
            if word >= 0:
                following[node][labels[" "]] = _ROOT
        return cls(tuple(words), labels[" "], torch.tensor(following), torch.tensor(spelled))


class _Beams(NamedTuple):
    """State of every beam, (B, W) each; `history` (B, W, 2) word ids, the older one first."""

    blank: Tensor
    label: Tensor
    language: Tensor
    last: Tensor
    key: Tensor
    parent_key: Tensor
    node: Tensor
    history: Tensor


class BeamSearch:
    """A decoder of frame-wise log probabilities; see the module.

    Args:
        beams: W.
        lexicon: Words that may occur; None for any string of labels.
        language: Language model of the lexicon's words.
        language_weight: alpha.
        word_bonus: beta, nats a word.
    """

    def __init__(
        self,
        beams: int,
        *,
        lexicon: Lexicon | None = None,
        language: WordTrigram | None = None,
        language_weight: float = 1.0,
        word_bonus: float = 0.0,
    ) -> None:
        if beams < 1:
            raise BeamSearchError(f"beams is {beams}; expected at least 1.")
        if (lexicon is None) != (language is None):
            raise BeamSearchError("A lexicon and a language model of its words are given together, or neither.")
        if lexicon is not None and len(lexicon.words) != language.size:
            raise BeamSearchError(f"The lexicon has {len(lexicon.words)} words, the language model {language.size}.")
        self.beams, self.lexicon, self.language = beams, lexicon, language
        self.language_weight, self.word_bonus = language_weight, word_bonus

    @torch.no_grad()
    def __call__(self, log_probabilities: Tensor, frames: Tensor) -> tuple[list[list[int]], Tensor]:
        """Return the best transcript of every utterance, as labels, and its score in nats, (B,).

        Args:
            log_probabilities: ln p_t, (B, T, K).
            frames: Frames of each utterance, int64 (B,).
        """
        # Sums of many small numbers: the scores of beams differ in few digits.
        scores = log_probabilities.double().cpu()
        frames = frames.cpu()
        state = self._start(len(scores), scores.device)
        parents, labels = [], []
        for frame in range(scores.shape[1]):
            moved, parent, label = self._step(state, scores[:, frame])
            active = (frame < frames)[:, None]
            state = _Beams(
                *(
                    torch.where(active if new.dim() == 2 else active[..., None], new, old)
                    for new, old in zip(moved, state, strict=True)
                )
            )
            parents.append(torch.where(active, parent, torch.arange(self.beams)))
            labels.append(torch.where(active, label, BLANK))
        total = self._finished(state)
        best = total.argmax(1)
        return _traced(best, parents, labels), total.gather(1, best[:, None])[:, 0]

    def _start(self, count: int, device: torch.device) -> _Beams:
        shape = (count, self.beams)
        blank = torch.full(shape, _OFF, dtype=torch.float64, device=device)
        blank[:, 0] = 0.0
        start = self.language.start if self.language else 0
        return _Beams(
            blank,
            torch.full_like(blank, _OFF),
            torch.zeros_like(blank),
            torch.full(shape, BLANK),
            # No prefix has these: beams that are not there never count as another's parent.
            torch.arange(shape[1]).expand(shape) + 1,
            torch.full(shape, -1),
            torch.full(shape, _ROOT),
            torch.full((*shape, 2), start),
        )

    def _step(self, state: _Beams, scores: Tensor) -> tuple[_Beams, Tensor, Tensor]:
        """Advance by a frame with log probabilities (B, K); return beams, each one's parent and its new label."""
        size = scores.shape[1]
        either = torch.logaddexp(state.blank, state.label)
        stay_blank = either + scores[:, BLANK, None]
        stay_label = state.label + scores.gather(1, state.last)
        repeats = torch.arange(size) == state.last[..., None]
        extend = torch.where(repeats, state.blank[..., None], either[..., None]) + scores[:, None]  # (B, W, K)
        extend[..., BLANK] = _OFF
        gain = torch.zeros_like(extend)
        if self.lexicon is not None:
            extend = extend.masked_fill(self.lexicon.following[state.node] < 0, _OFF)
            gain[..., self.lexicon.space] = self._word_score(state)
        # A beam whose prefix without its last label is another beam: that one's extension is the same prefix.
        same = state.parent_key[:, :, None] == state.key[:, None]  # (B, W child, W parent)
        same &= (either > _OFF)[:, :, None] & (either > _OFF)[:, None]
        parent = same.int().argmax(2)
        merged = extend.gather(1, parent[..., None].expand(-1, -1, size)).gather(2, state.last[..., None])[..., 0]
        found = same.any(2)
        stay_label = torch.where(found, torch.logaddexp(stay_label, merged), stay_label)
        taken = torch.zeros_like(extend, dtype=torch.int64).flatten(1)
        taken.scatter_add_(1, parent * size + state.last, found.long())
        extend = extend.masked_fill(taken.view_as(extend) > 0, _OFF)

        stays = torch.logaddexp(stay_blank, stay_label) + state.language
        extends = extend + gain + state.language[..., None]
        chosen = torch.cat([stays, extends.flatten(1)], 1).topk(self.beams, dim=1).indices
        grows = chosen >= self.beams
        place = (chosen - self.beams).clamp(min=0)
        parent = torch.where(grows, place // size, chosen.clamp(max=self.beams - 1))
        label = torch.where(grows, place % size, BLANK)
        return self._moved(state, (stay_blank, stay_label, extend, gain), parent, label, grows), parent, label

    def _moved(self, state: _Beams, parts: tuple[Tensor, ...], parent: Tensor, label: Tensor, grows: Tensor) -> _Beams:
        stay_blank, stay_label, extend, gain = parts
        size = extend.shape[2]

        def of_parent(values: Tensor) -> Tensor:
            return values.gather(1, parent)

        def grown(values: Tensor) -> Tensor:
            return values.flatten(1).gather(1, parent * size + label)

        key, node, last = of_parent(state.key), of_parent(state.node), of_parent(state.last)
        history = state.history.gather(1, parent[..., None].expand(-1, -1, 2))
        if self.lexicon is not None:
            ends = (grows & (label == self.lexicon.space))[..., None]
            said = torch.stack([history[..., 1], self.lexicon.spelled[node]], -1)
            history = torch.where(ends, said, history)
            node = torch.where(grows, self.lexicon.following[node, label], node)
        return _Beams(
            torch.where(grows, _OFF, of_parent(stay_blank)),
            torch.where(grows, grown(extend), of_parent(stay_label)),
            of_parent(state.language) + torch.where(grows, grown(gain), 0.0),
            torch.where(grows, label, last),
            torch.where(grows, key * _MULTIPLIER + label, key),
            torch.where(grows, key, of_parent(state.parent_key)),
            node,
            history,
        )

    def _word_score(self, state: _Beams) -> Tensor:
        """Return what the word that ends at each beam's node adds, 0 where none ends, (B, W)."""
        word = self.lexicon.spelled[state.node]
        nats = self.language.log_probability(state.history[..., 0], state.history[..., 1], word.clamp(min=0))
        return torch.where(word >= 0, self.language_weight * nats + self.word_bonus, 0.0)

    def _finished(self, state: _Beams) -> Tensor:
        """Return the scores of beams that end here, (B, W)."""
        total = torch.logaddexp(state.blank, state.label) + state.language
        if self.lexicon is None:
            return total
        word = self.lexicon.spelled[state.node]
        said = (word >= 0)[..., None]
        history = torch.where(said, torch.stack([state.history[..., 1], word], -1), state.history)
        end = self.language.log_probability(history[..., 0], history[..., 1], torch.full_like(word, self.language.end))
        whole = (word >= 0) | (state.node == _ROOT)
        return total + self._word_score(state) + self.language_weight * end + torch.where(whole, 0.0, _UNFINISHED)


def _traced(best: Tensor, parents: list[Tensor], labels: list[Tensor]) -> list[list[int]]:
    """Follow the best beams (B,) back to the first frame and return their labels."""
    beam, found = best[:, None], []
    for parent, label in zip(reversed(parents), reversed(labels), strict=True):
        found.append(label.gather(1, beam))
        beam = parent.gather(1, beam)
    rows = torch.cat(found[::-1], 1) if found else torch.zeros(len(best), 0, dtype=torch.int64)
    return [row[row != BLANK].tolist() for row in rows]
