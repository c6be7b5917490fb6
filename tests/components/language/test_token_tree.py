import numpy as np
import pytest
import torch
from token_models import untrained, word_tokenizer

from components.language.causal_lm import ContextOverflow
from components.language.token_rows import encodings
from components.language.token_tree import TokenTree, UnknownSequence


@pytest.mark.parametrize("positions", ["rotary", "learned"])
def test_rows_are_those_of_a_pass_over_each_sequence_alone(positions):
    model = untrained(20, positions=positions)
    generator = np.random.default_rng(0)
    stem = generator.integers(20, size=8).tolist()
    sequences = [[*stem[:cut], *generator.integers(20, size=5).tolist()] for cut in (0, 3, 3, 8)]
    tree = TokenTree(model, [*sequences, stem])
    for sequence in sequences:
        expected = model.along(torch.tensor([sequence]))[0]
        for end in range(len(sequence) + 1):
            assert tree.next(sequence[:end]).tolist() == pytest.approx(expected[end].tolist(), abs=1e-9)


def test_sequences_share_what_they_begin_with():
    model = untrained(20)
    assert TokenTree(model, [[1, 2, 3], [1, 2, 4], [1, 2]]).size == 1 + 4
    tokenizer = word_tokenizer()
    text = "the theme then them that hat"
    tree = TokenTree(untrained(len(tokenizer.vocabulary)), encodings(tokenizer, text))
    assert tree.size < 3 * len(text)


def test_only_beginnings_of_the_sequences_are_known():
    tree = TokenTree(untrained(20), [[1, 2, 3]])
    with pytest.raises(UnknownSequence, match="token 4 behind its first 1"):
        tree.next([1, 4])


def test_a_sequence_longer_than_the_context_is_refused():
    model = untrained(20, context=4)
    TokenTree(model, [[1, 2, 3]])
    with pytest.raises(ContextOverflow, match="4 tokens and the start token"):
        TokenTree(model, [[1, 2, 3, 4]])
