import json

import pytest
import torch

from components.bases import ModelDescriptionError, construct, save_model, specification
from components.language.pretrained import load_language_model, save_tokens, special_ids
from components.tokenizers.text import bpe
from components.tokenizers.text.byte_level import BYTES

BPE = "components.tokenizers.text.bpe"


@pytest.fixture
def directory(tmp_path):
    tokenizer = bpe.train(["abab abab"], 258, alphabet=BYTES)
    description = specification(
        "components.language.causal_lm", vocabulary_size=260, context=8, width=8, layers=1, heads=2, tied=True
    )
    save_tokens(tmp_path, tokenizer, BPE, ["<eos>", "<pre>"])
    save_model(tmp_path, construct(description), description)
    return tmp_path


def test_model_tokenizer_and_special_tokens_come_back(directory):
    language = load_language_model(directory)
    assert language.tokenizer.decode(language.tokenizer.encode("abab")) == "abab"
    assert language.specials == special_ids(258, ["<eos>", "<pre>"]) == {"<eos>": 258, "<pre>": 259}
    assert not language.model.training
    assert language.model.along(torch.tensor([[258]])).shape == (1, 2, 260)


def test_a_tokenizer_of_another_model_is_refused(directory):
    described = json.loads((directory / "language.json").read_text())
    (directory / "language.json").write_text(json.dumps({**described, "specials": ["<eos>"]}))
    with pytest.raises(ModelDescriptionError, match="vocabulary of 259, the model has 260"):
        load_language_model(directory)


def test_a_tokenizer_from_elsewhere_is_never_imported(directory):
    (directory / "language.json").write_text(json.dumps({"tokenizer": "os", "specials": []}))
    with pytest.raises(ModelDescriptionError, match="refusing to import"):
        load_language_model(directory)


def test_a_directory_without_a_language_model_says_so(tmp_path):
    with pytest.raises(ModelDescriptionError, match=r"language\.json"):
        load_language_model(tmp_path)
