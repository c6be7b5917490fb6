import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from components.language.corpus_windows import Arrangement, CorpusWindows, TooLittleText, chunks, encode_documents
from components.tokenizers.text import bpe
from components.tokenizers.text.byte_level import BYTES, SPACED_PIECES, to_symbols

SPECIALS = {"<eos>": 270, "<pre>": 271, "<suf>": 272, "<mid>": 273}
TEXT = "def add(one, two):\n    return one + two\n\nclass Größe:\n    pass\n"


@pytest.fixture(scope="module")
def tokenizer():
    return bpe.train([to_symbols(TEXT)], 270, alphabet=BYTES, pieces=SPACED_PIECES)


@settings(max_examples=60, deadline=None)
@given(st.text(alphabet=to_symbols("ab \n\x0c_(ß"), max_size=200))
def test_chunks_join_to_the_text_and_fit_the_context(tokenizer, text):
    parts = list(chunks(text, tokenizer, 24))
    assert "".join(parts) == text
    assert all(len(tokenizer.encode(part)) <= 24 for part in parts)


def test_chunks_begin_at_lines_unless_a_line_is_too_long(tokenizer):
    text = to_symbols(TEXT * 4)
    begins = np.cumsum([0, *map(len, chunks(text, tokenizer, 40))])[:-1]
    assert all(begin == 0 or text[begin - 1] == "\n" for begin in begins.tolist())


def test_windows_begin_at_chunks_and_every_document_ends_with_eos(tokenizer):
    documents = [to_symbols(TEXT) * 3, to_symbols(TEXT)]
    windows = CorpusWindows(documents, tokenizer, SPECIALS, 40)
    spelled = [[token for token in part if token < 270] for part in _split(windows.tokens.tolist(), 270)]
    assert [tokenizer.decode(part) for part in spelled] == [*documents, ""]
    first_chunks = {tuple(tokenizer.encode(part)[:5]) for text in documents for part in chunks(text, tokenizer, 40)}
    for row in windows.windows(range(len(windows.starts))).tolist():
        assert tuple(row[:5]) in first_chunks
    drawn = windows.draw(50, torch.Generator().manual_seed(0))
    assert drawn.shape == (50, 40)
    assert {row[0] for row in drawn.tolist()} <= {row[0] for row in first_chunks}


def test_whole_documents_are_encoded_with_their_ends(tokenizer):
    documents = [to_symbols(TEXT), "", "ab"]
    tokens = encode_documents(documents, tokenizer, SPECIALS).tolist()
    assert tokens == [*tokenizer.encode(documents[0]), 270, 270, *tokenizer.encode("ab"), 270]


def test_disjoint_windows_do_not_overlap(tokenizer):
    windows = CorpusWindows([to_symbols(TEXT) * 20], tokenizer, SPECIALS, 40)
    starts = windows.starts[windows.disjoint()]
    assert (starts.diff() >= 40).all()
    assert len(starts) > 3


def test_arranged_chunks_are_documents_of_their_own(tokenizer):
    generator = np.random.default_rng(0)
    windows = CorpusWindows([to_symbols(TEXT) * 20], tokenizer, SPECIALS, 40, Arrangement(psm=0.5, spm=0.5), generator)
    documents = _split(windows.tokens.tolist(), SPECIALS["<eos>"])
    assert documents[-1] == []
    for document in documents[:-1]:
        assert [document.count(SPECIALS[name]) for name in ("<pre>", "<suf>", "<mid>")] == [1, 1, 1]
        assert document[0] == SPECIALS["<pre>"]


def test_a_corpus_without_a_window_is_refused(tokenizer):
    with pytest.raises(TooLittleText, match="at least 40"):
        CorpusWindows(["ab"], tokenizer, SPECIALS, 40)


def _split(tokens: list[int], end: int) -> list[list[int]]:
    parts: list[list[int]] = [[]]
    for token in tokens:
        if token == end:
            parts.append([])
        else:
            parts[-1].append(token)
    return parts
