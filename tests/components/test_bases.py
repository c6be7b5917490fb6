"""Models on disk: described, built again, and nothing foreign imported."""

import json

import pytest
import torch

from components.bases import (
    ModelDescriptionError,
    UnknownBase,
    construct,
    load_base,
    load_model,
    save_base,
    save_model,
    specification,
)
from components.training.weights import WeightsMismatch

CLASSIFIER = specification("components.nn.image_classifiers", design="plain", channels=[[4], [6]], classes=3)


def tokenizer_description():
    quantizer = specification("components.quantizers.vq", codebook_size=16, code_dim=4, code_ema_decay=0.9)
    return specification(
        "components.tokenizers.image.one_d", quantizer=quantizer, image_side=16, patch_size=8, tokens=4, width=16,
        layers=1, heads=2, drop="none",
    )  # fmt: skip


def test_a_saved_model_comes_back_bit_for_bit_with_its_parts(tmp_path):
    model = construct(tokenizer_description())
    save_model(tmp_path, model, tokenizer_description())
    back = load_model(tmp_path)
    images = torch.rand(2, 3, 16, 16)
    assert not back.training
    assert torch.equal(back.decode(back.encode(images)), model.eval().decode(model.encode(images)))


def test_equal_models_give_equal_bytes(tmp_path):
    for name in ("one", "two"):
        torch.manual_seed(0)
        (tmp_path / name).mkdir()
        save_model(tmp_path / name, construct(CLASSIFIER), CLASSIFIER)
    for file in ("model.safetensors", "config.json"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_a_base_is_found_by_name_and_has_a_card(tmp_path):
    (tmp_path / "small").mkdir()
    save_base(tmp_path / "small", construct(CLASSIFIER), CLASSIFIER, "# small\n\nWhat it is.\n\n")
    assert load_base("small", tmp_path).feature_dim == 6
    assert (tmp_path / "small" / "card.md").read_text() == "# small\n\nWhat it is.\n"
    with pytest.raises(UnknownBase, match="Did you mean 'small'"):
        load_base("smal", tmp_path)


@pytest.mark.parametrize("module", ["os", "subprocess", "componentsx.evil", "flows.stage"])
def test_a_description_cannot_import_anything_but_components(tmp_path, module):
    with pytest.raises(ModelDescriptionError, match="refusing"):
        construct({"build": module, "arguments": {}})


def test_descriptions_that_cannot_be_built_say_so(tmp_path):
    with pytest.raises(ModelDescriptionError, match="no module with a function"):
        construct({"build": "components.nn.missing", "arguments": {}})
    with pytest.raises(ModelDescriptionError, match=r"config\.json"):
        load_model(tmp_path)
    (tmp_path / "config.json").write_text("[1]")
    with pytest.raises(ModelDescriptionError, match="no model"):
        load_model(tmp_path)


def test_weights_of_another_model_are_refused(tmp_path):
    save_model(tmp_path, construct(CLASSIFIER), CLASSIFIER)
    other = {**CLASSIFIER, "arguments": {**CLASSIFIER["arguments"], "classes": 4}}
    (tmp_path / "config.json").write_text(json.dumps(other))
    with pytest.raises(WeightsMismatch):
        load_model(tmp_path)
