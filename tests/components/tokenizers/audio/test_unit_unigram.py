"""Unigram tokens of units: expansion gives the units back, frequent strings become tokens, files are read back."""

import pytest
import torch

from components.tokenizers.audio import unit_bpe, unit_unigram

CORPUS = [torch.randint(3, (30,), generator=torch.Generator().manual_seed(seed)).tolist() for seed in range(9)]
CORPUS += [[3, 4, 3, 4, 3, 4] * 3] * 6


def test_expansion_gives_the_units_back_and_repeated_strings_are_single_tokens():
    tokenizer = unit_unigram.train(CORPUS, 12, base_size=6)
    for units in (*CORPUS, [5, 0, 5, 4, 4]):
        assert tokenizer.decode(tokenizer.encode(units)) == units
    assert tokenizer.base_size == 6
    assert len(tokenizer.encode([3, 4] * 9)) < 18


def test_a_saved_tokenizer_is_read_back(tmp_path):
    tokenizer = unit_unigram.train(CORPUS, 12, base_size=6)
    tokenizer.save(tmp_path / "units.json")
    again = unit_unigram.load(tmp_path / "units.json")
    assert again.expansions == tokenizer.expansions
    assert again.encode(CORPUS[0]) == tokenizer.encode(CORPUS[0])


def test_unknown_units_are_named():
    with pytest.raises(unit_bpe.UnitBPEError, match="Unit 6"):
        unit_unigram.train(CORPUS, 12, base_size=6).encode([6])
