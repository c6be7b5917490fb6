from __future__ import annotations

import re

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from components.training.weights import WeightsMismatch, load_weights, save_weights


class Tied(nn.Module):
    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.embedding = nn.Embedding(5, width)
        self.norm = nn.BatchNorm1d(width)
        self.head = nn.Linear(width, 5, bias=False)
        self.head.weight = self.embedding.weight
        self.register_buffer("scratch", torch.rand(2), persistent=False)


def test_weights_come_back_bit_for_bit_and_stay_tied(tmp_path):
    saved, loaded = Tied(), Tied()
    save_weights(saved, tmp_path / "model.safetensors")
    load_weights(loaded, tmp_path / "model.safetensors")
    for name, tensor in saved.state_dict().items():
        assert torch.equal(tensor, loaded.state_dict()[name])
    assert loaded.head.weight is loaded.embedding.weight
    assert set(load_file(tmp_path / "model.safetensors")) == {
        "embedding.weight", "norm.weight", "norm.bias", "norm.running_mean", "norm.running_var",
        "norm.num_batches_tracked",
    }  # fmt: skip


def test_equal_weights_give_equal_bytes_whatever_their_layout(tmp_path):
    model = nn.Linear(3, 2)
    save_weights(model, tmp_path / "a")
    model.weight.data = model.weight.data.t().contiguous().t()
    save_weights(model, tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_every_misfit_is_named_and_nothing_is_loaded(tmp_path):
    save_weights(nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2)), tmp_path / "w")
    model = nn.ModuleDict({"0": nn.Linear(4, 2), "2": nn.Linear(2, 2)})
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(WeightsMismatch) as caught:
        load_weights(model, tmp_path / "w")
    message = str(caught.value)
    assert str(tmp_path / "w") in message
    assert "0.weight is float32[2, 3] in the file, float32[2, 4] in the model" in message
    assert "2.weight is missing from the file" in message
    assert "1.weight is not part of the model" in message
    assert "Build the model with the settings it was saved with" in message
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_another_dtype_is_a_misfit(tmp_path):
    save_weights(nn.Linear(3, 2).half(), tmp_path / "w")
    with pytest.raises(WeightsMismatch, match=re.escape("weight is float16[2, 3] in the file, float32[2, 3]")):
        load_weights(nn.Linear(3, 2), tmp_path / "w")


def test_not_strict_loads_what_both_have_but_still_refuses_shapes(tmp_path):
    saved = nn.ModuleDict({"body": nn.Linear(3, 3), "head": nn.Linear(3, 9)})
    save_weights(saved, tmp_path / "w")
    model = nn.ModuleDict({"body": nn.Linear(3, 3), "probe": nn.Linear(3, 2)})
    probe = model["probe"].weight.clone()
    load_weights(model, tmp_path / "w", strict=False)
    assert torch.equal(model["body"].weight, saved["body"].weight)
    assert torch.equal(model["probe"].weight, probe)
    with pytest.raises(WeightsMismatch, match="body"):
        load_weights(nn.ModuleDict({"body": nn.Linear(2, 3)}), tmp_path / "w", strict=False)


@pytest.mark.parametrize("content", [None, b"", b"not safetensors", "truncated"])
def test_a_missing_or_damaged_file_says_what_to_do(tmp_path, content):
    path = tmp_path / "w"
    if content == "truncated":
        save_weights(nn.Linear(3, 2), path)
        path.write_bytes(path.read_bytes()[:-1])
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(WeightsMismatch, match=r"cannot be read as safetensors .* rerun the stage"):
        load_weights(nn.Linear(3, 2), path)
