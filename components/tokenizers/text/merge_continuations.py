"""Which tokens may follow a token of byte-pair encoding, for all of them at once and without encoding anything.

A pair (a, b) of reachable tokens is valid iff, while the text of both is merged, no merge across the place between
them ever is the next one. Until then each token merges by itself, in its own order, and the next merge of all is the
one of lowest rank, leftmost among equals. So the two orders interleave by their running maxima: a merge of rank r
comes when every lower one is done, and a merge that only became possible late, at a rank already passed, comes at once
behind the one that made it possible.

At the place between them stands the last symbol of a, which merges turn from the last character through longer and
longer ones into a, and the first symbol of b. Stage i of that symbol is made at running maximum S_i, is merged away at
E_i, and the highest rank among a's merges in between is M_i; S = -1 for the single character, E = M = infinity for the
whole token. Stages i of a and j of b stand side by side iff S_i <= E_j and S_j < E_i, and then the merge of rank m
across, if there is one, is the next one at some time iff

    m < M_i    where a's stage ends first, E_i <= E_j,
    m <= M_j   where b's does                                (of equal ranks the left merge comes first).

Between pieces of a pre-tokenizer nothing merges and every pair of reachable tokens is valid. Longer sequences are valid
iff all adjacent pairs are: the first merge across any border would come in that pair alone, too.

Letters: V tokens, A symbols, N merges, L symbols of the longest token, G stages of all tokens.

Source: Phan et al. 2024, "Exact Byte-Level Probabilities from Tokenized Language Models for FIM-Tasks and Model
Ensembles", valid encodings (re-encoding there); merges: Sennrich et al. 2016, section 3.2.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from components.tokenizers.text.bpe import BytePairTokenizer
from components.tokenizers.text.lexicographic import ENDED, LexicographicVocabulary
from components.tokenizers.text.neighbours import piece_cuts
from components.tokenizers.text.row_cache import RowCache

_NEVER = np.iinfo(np.int64).max


class MergeContinuations:
    """Valid continuations of byte-pair encoding, from its merges.

    Args:
        vocabulary: Token strings by id; every symbol of every token is one.
        merges: Pairs of tokens that are merged, by rank.
        cuts: Between which neighbouring symbols a new piece begins, (A, A) booleans in ascending order of the symbols;
            None without a pre-tokenizer.
    """

    def __init__(
        self, vocabulary: Sequence[str], merges: Sequence[tuple[str, str]], cuts: np.ndarray | None = None
    ) -> None:
        words = LexicographicVocabulary(vocabulary)
        ids = {token: identity for identity, token in enumerate(words.vocabulary)}
        pairs = np.array([(ids[left], ids[right]) for left, right in merges], np.int64).reshape(-1, 2)
        made = np.array([ids[left + right] for left, right in merges], np.int64)
        by_left = np.argsort(pairs[:, 0], kind="stable")
        self._partner, self._rank = pairs[by_left, 1], by_left
        self._partners = _starts(pairs[by_left, 0], len(ids))

        characters = np.array([ids.get(symbol, -1) for symbol in words.alphabet])
        symbols = np.empty((len(ids), words.longest), np.int64)
        symbols[words.order] = np.where(words.symbols[:-1] == ENDED, ENDED, characters[words.symbols[:-1]]).T
        first, last, self._reachable = _merged_alone(symbols, pairs, made)
        self._last = last.sorted_by(last.token)
        self._lasts = _starts(self._last.token, len(ids))
        self._first = first.sorted_by(first.symbol)
        self._firsts = _starts(self._first.symbol, len(ids))

        self._cuts = cuts
        self._first_code, self._last_code = (np.empty(len(ids), np.int64) for _ in range(2))
        lengths = (words.symbols != ENDED).sum(0)
        self._first_code[words.order] = words.symbols[0]
        self._last_code[words.order] = words.symbols[lengths - 1, np.arange(len(ids))]
        self._rows: RowCache[int] = RowCache(self._row)

    @classmethod
    def of(cls, tokenizer: BytePairTokenizer) -> MergeContinuations:
        """Read the merges of a tokenizer, and try where its pre-tokenizer cuts.

        Raises:
            NotDecidedByNeighbours: Its pieces depend on more than neighbouring symbols.
        """
        with tempfile.TemporaryDirectory() as folder:
            tokenizer.save(path := Path(folder) / "tokenizer.json")
            merges = [tuple(merge) for merge in json.loads(path.read_text())["model"]["merges"]]
        alphabet = LexicographicVocabulary(tokenizer.vocabulary).alphabet
        return cls(tokenizer.vocabulary, merges, piece_cuts(tokenizer, alphabet) if tokenizer.pieces else None)

    def after(self, tokens: Sequence[int]) -> np.ndarray:
        """Return which tokens may follow a valid sequence, (V,) booleans that the caller leaves unchanged."""
        return self._rows[tokens[-1]] if len(tokens) else self._reachable

    def _row(self, token: int) -> np.ndarray:
        ends = self._last[slice(*self._lasts[token : token + 2])]
        stage, merge = _ranges(self._partners[ends.symbol], self._partners[ends.symbol + 1])
        partner, rank = self._partner[merge], self._rank[merge]
        which, begin = _ranges(self._firsts[partner], self._firsts[partner + 1])
        left, right, rank = ends[stage[which]], self._first[begin], rank[which]
        side_by_side = (left.made <= right.gone) & (right.made < left.gone)
        comes = np.where(left.gone <= right.gone, rank < left.highest, rank <= right.highest)
        row = self._reachable.copy()
        row[right.token[side_by_side & comes]] = False
        if self._cuts is not None:
            row |= self._reachable & self._cuts[self._last_code[token]][self._first_code]
        return row


@dataclass(frozen=True)
class _Stages:
    """Stages of the symbol at one end of tokens that merge by themselves, each (G,) int64.

    Attributes:
        token: Token whose end it is.
        symbol: Token that the end is at this stage.
        made: S, running maximum of the ranks when it is made, -1 for a character.
        gone: E, the same when it is merged away, _NEVER for the whole token.
        highest: M, highest rank among the token's merges in between, the one that merges it away included.
    """

    token: np.ndarray
    symbol: np.ndarray
    made: np.ndarray
    gone: np.ndarray
    highest: np.ndarray

    def __getitem__(self, which: np.ndarray | slice) -> _Stages:
        return _Stages(self.token[which], self.symbol[which], self.made[which], self.gone[which], self.highest[which])

    def sorted_by(self, key: np.ndarray) -> _Stages:
        return self[np.argsort(key, kind="stable")]


class _End:
    """Follows the symbol at one end of all tokens while they merge, and writes its stages down."""

    def __init__(self, characters: np.ndarray) -> None:
        self._symbol = characters.copy()
        self._made = np.full(len(characters), -1, np.int64)
        self._highest = np.full(len(characters), -1, np.int64)
        self._columns: list[tuple[np.ndarray, ...]] = []

    def merge(self, token: np.ndarray, rank: np.ndarray, now: np.ndarray, ends: np.ndarray, made: np.ndarray) -> None:
        """Take one merge of each of some tokens; `ends` says where it took the symbol at this end."""
        self._highest[token] = np.maximum(self._highest[token], rank)
        changed = token[ends]
        self._close(changed, now[ends], self._highest[changed])
        self._symbol[changed], self._made[changed], self._highest[changed] = made[ends], now[ends], -1

    def stages(self) -> _Stages:
        everything = np.arange(len(self._symbol))
        never = np.full(len(everything), _NEVER)
        self._close(everything, never, never)
        return _Stages(*(np.concatenate(column) for column in zip(*self._columns, strict=True)))

    def _close(self, token: np.ndarray, gone: np.ndarray, highest: np.ndarray) -> None:
        self._columns.append((token, self._symbol[token], self._made[token], gone, highest))


def _merged_alone(symbols: np.ndarray, pairs: np.ndarray, made: np.ndarray) -> tuple[_Stages, _Stages, np.ndarray]:
    """Merge every token's text by itself, all of them in step, always the lowest rank and of equals the leftmost.

    Args:
        symbols: Characters of each token as token ids, ENDED behind the last, (V, L).
        pairs: Tokens merged by each rank, (N, 2).
        made: What comes out, (N,).

    Returns:
        Stages of the first symbol, stages of the last one, and which tokens come out as themselves, (V,) booleans.
    """
    size = len(symbols)
    lengths = (symbols != ENDED).sum(1)
    keys = pairs[:, 0] * size + pairs[:, 1]
    by_key = np.argsort(keys)
    keys = keys[by_key]
    first = _End(symbols[:, 0])
    last = _End(symbols[np.arange(size), lengths - 1])
    now = np.full(size, -1, np.int64)
    symbols, active = symbols.copy(), np.flatnonzero(lengths > 1)
    while len(active):
        part = symbols[active, : lengths[active].max()]
        wanted = np.where(part[:, 1:] == ENDED, -1, part[:, :-1] * size + part[:, 1:])
        place = np.searchsorted(keys, wanted).clip(max=max(len(keys) - 1, 0))
        ranks = np.where(keys[place] == wanted, by_key[place], _NEVER) if len(keys) else np.full(wanted.shape, _NEVER)
        where = ranks.argmin(1)
        rank = ranks[np.arange(len(active)), where]
        going = rank < _NEVER
        active, where, rank, part = active[going], where[going], rank[going], part[going]
        now[active] = np.maximum(now[active], rank)
        first.merge(active, rank, now[active], where == 0, made[rank])
        last.merge(active, rank, now[active], where + 2 == lengths[active], made[rank])
        columns = np.arange(part.shape[1] - 1)
        shifted = np.where(columns <= where[:, None], part[:, :-1], part[:, 1:])
        shifted[np.arange(len(active)), where] = made[rank]
        symbols[active, : part.shape[1] - 1] = shifted
        symbols[active, part.shape[1] - 1] = ENDED
        lengths[active] -= 1
        active = active[lengths[active] > 1]
    reachable = (lengths == 1) & (symbols[:, 0] == np.arange(size))
    return first.stages(), last.stages(), reachable


def _starts(ascending: np.ndarray, count: int) -> np.ndarray:
    """Return where each of 0 .. count - 1 begins in ascending numbers, and their end, (count + 1,)."""
    return np.searchsorted(ascending, np.arange(count + 1))


def _ranges(low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """List the numbers of many ranges one after the other: the range that each comes from, and the number."""
    lengths = high - low
    which = np.repeat(np.arange(len(low)), lengths)
    return which, np.arange(len(which)) + (low - np.append(0, lengths.cumsum()[:-1]))[which]
