"""T5 against its published sizes, a bucket-by-bucket count, and itself decoded step by step."""

import json
import math

import pytest
import torch

from components.language.t5 import T5, T5Config, T5Error, distance_buckets, hub_name, read_hub
from components.nn.transformer import KeyValueCache
from components.training.weights import WeightsMismatch, write_tensors

SMALL = T5Config(
    vocabulary_size=20, width=16, layers=2, heads=2, head_width=6, hidden=24, buckets=8, furthest=16, start_token=0
)


def small() -> T5:
    torch.manual_seed(0)
    return T5(SMALL).eval()


def by_hand(w: dict[str, torch.Tensor], source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """The published model on one unpadded pair, written out from the names of a checkpoint, head by head."""

    def norm(x, name):
        return x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt() * w[f"{name}.weight"]

    def attend(x, context, name, bias):
        q, k, v = x @ w[f"{name}.q.weight"].T, context @ w[f"{name}.k.weight"].T, context @ w[f"{name}.v.weight"].T
        heads = []
        for head in range(SMALL.heads):
            part = slice(head * SMALL.head_width, (head + 1) * SMALL.head_width)
            scores = q[:, part] @ k[:, part].T + (0 if bias is None else bias[head])
            heads.append(scores.softmax(-1) @ v[:, part])
        return torch.cat(heads, -1) @ w[f"{name}.o.weight"].T

    def biases(stack, length, both):
        table = w[f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"]
        distance = torch.arange(length) - torch.arange(length)[:, None]
        bias = table[distance_buckets(distance, SMALL.buckets, SMALL.furthest, both)].permute(2, 0, 1)
        return bias if both else bias.masked_fill(distance > 0, -math.inf)

    def mlp(x, name):
        return (x @ w[f"{name}.wi.weight"].T).relu() @ w[f"{name}.wo.weight"].T

    x = w["shared.weight"][source]
    for layer in range(SMALL.layers):
        name = f"encoder.block.{layer}.layer"
        normed = norm(x, f"{name}.0.layer_norm")
        x = x + attend(normed, normed, f"{name}.0.SelfAttention", biases("encoder", len(source), True))
        x = x + mlp(norm(x, f"{name}.1.layer_norm"), f"{name}.1.DenseReluDense")
    states = norm(x, "encoder.final_layer_norm")
    y = w["shared.weight"][target]
    for layer in range(SMALL.layers):
        name = f"decoder.block.{layer}.layer"
        normed = norm(y, f"{name}.0.layer_norm")
        y = y + attend(normed, normed, f"{name}.0.SelfAttention", biases("decoder", len(target), False))
        y = y + attend(norm(y, f"{name}.1.layer_norm"), states, f"{name}.1.EncDecAttention", None)
        y = y + mlp(norm(y, f"{name}.2.layer_norm"), f"{name}.2.DenseReluDense")
    return norm(y, "decoder.final_layer_norm") * SMALL.width**-0.5 @ w["shared.weight"].T


def test_the_model_is_the_published_one_written_out_by_hand():
    model = small().double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.5)
        weights = {hub_name(name): tensor for name, tensor in model.state_dict().items()}
        source, labels = torch.randint(1, 20, (1, 6)), torch.randint(1, 20, (1, 5))
        found = model(source, torch.ones(1, 6, dtype=torch.bool), labels)[0]
        expected = by_hand(weights, source[0], torch.cat([torch.tensor([SMALL.start_token]), labels[0, :-1]]))
    assert torch.allclose(found, expected, atol=1e-9)


@pytest.mark.parametrize(
    ("config", "published"),
    [
        (T5Config(width=512, layers=6, heads=8, hidden=2048), 60_506_624),
        (T5Config(), 222_903_552),
        (T5Config(width=1024, layers=24, heads=32, head_width=128, hidden=16_384), 2_851_598_336),
    ],
    ids=["t5-small", "t5-base", "t5-3b"],
)
def test_released_sizes_have_exactly_their_published_number_of_parameters(config, published):
    with torch.device("meta"):
        model = T5(config)
    assert sum(parameter.numel() for parameter in model.parameters()) == published


def test_near_distances_have_a_bucket_each_and_far_ones_share_logarithmic_ones():
    distance = torch.arange(-200, 201)
    found = distance_buckets(distance, 32, 128, both_directions=True)
    for value, bucket in zip(distance.tolist(), found.tolist(), strict=True):
        size, ahead = abs(value), 16 * (value > 0)
        near = size if size < 8 else min(8 + math.floor(math.log(size / 8) / math.log(16) * 8 + 1e-6), 15)
        assert bucket == ahead + near, value
    causal = distance_buckets(distance, 32, 128, both_directions=False)
    assert (causal[distance >= 0] == 0).all()
    assert causal[distance == -15].item() == 15
    assert causal[distance == -127].item() == causal[distance == -200].item() == 31
    assert sorted(set(causal.tolist())) == list(range(32))


def test_padding_of_the_source_changes_nothing():
    model = small()
    source, labels = torch.randint(1, 20, (2, 5)), torch.randint(1, 20, (2, 3))
    mask = torch.ones(2, 5, dtype=torch.bool)
    padded = torch.nn.functional.pad(source, (0, 3), value=7)
    with torch.no_grad():
        plain = model(source, mask, labels)
        behind = model(padded, torch.nn.functional.pad(mask, (0, 3)), labels)
    assert torch.allclose(plain, behind, atol=1e-5)


def test_a_label_is_predicted_from_the_labels_before_it_and_all_of_the_source():
    model = small()
    source, labels = torch.randint(1, 20, (1, 5)), torch.randint(1, 20, (1, 4))
    mask = torch.ones(1, 5, dtype=torch.bool)
    with torch.no_grad():
        base = model(source, mask, labels)
        changed = labels.clone()
        changed[0, 2] = (changed[0, 2] + 1) % 19 + 1
        later = model(source, mask, changed)
        other = source.clone()
        other[0, 4] = (other[0, 4] + 1) % 19 + 1
        asked = model(other, mask, labels)
    assert torch.allclose(base[:, :3], later[:, :3], atol=1e-5)
    assert not torch.allclose(base[:, 3], later[:, 3], atol=1e-5)
    assert not torch.allclose(base[:, 0], asked[:, 0], atol=1e-5)


def test_decoding_with_a_cache_is_decoding_without_one():
    model = small()
    source, labels = torch.randint(1, 20, (3, 6)), torch.randint(1, 20, (3, 5))
    mask = torch.arange(6) < torch.tensor([[6], [4], [2]])
    with torch.no_grad():
        whole = model(source, mask, labels)
        states, hidden = model.encode(source, mask)
        cache = KeyValueCache(5)
        target = torch.cat([torch.zeros(3, 1, dtype=torch.int64), labels[:, :-1]], 1)
        steps = [model.decode(target[:, [step]], states, hidden, cache) for step in range(5)]
    assert torch.allclose(torch.cat(steps, 1), whole, atol=1e-5)


def test_positions_matter_only_by_distance():
    model = small()
    bias = model.encoder.position_bias(0, 7, torch.device("cpu"))
    assert torch.equal(bias[0, :, 1:, 1:], bias[0, :, :-1, :-1])
    assert not torch.equal(bias[0, :, 0, 1], bias[0, :, 1, 0])
    decoder = model.decoder.position_bias(3, 2, torch.device("cpu"))
    assert torch.isinf(decoder[0, :, 0, 4]).all()
    assert torch.isfinite(decoder[0, :, 1]).all()


def write_hub(directory, model: T5, **config) -> None:
    found = {
        "vocab_size": 20, "d_model": 16, "num_layers": 2, "num_heads": 2, "d_kv": 6, "d_ff": 24,
        "relative_attention_num_buckets": 8, "relative_attention_max_distance": 16, "decoder_start_token_id": 0,
        "feed_forward_proj": "relu",
    }  # fmt: skip
    (directory / "config.json").write_text(json.dumps(found | config))
    tensors = {hub_name(name): tensor for name, tensor in model.state_dict().items()}
    tensors["encoder.embed_tokens.weight"] = model.embedding.weight.detach().clone()
    write_tensors(tensors, directory / "model.safetensors")


def test_a_model_is_read_back_from_the_names_of_the_hub(tmp_path):
    model = small()
    write_hub(tmp_path, model)
    names = {hub_name(name) for name in model.state_dict()}
    assert "decoder.block.1.layer.1.EncDecAttention.k.weight" in names
    assert "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight" in names
    assert "decoder.block.0.layer.2.DenseReluDense.wo.weight" in names
    assert "encoder.block.1.layer.1.layer_norm.weight" in names
    read = read_hub(tmp_path)
    assert read.config == SMALL
    source, labels = torch.randint(1, 20, (2, 5)), torch.randint(1, 20, (2, 3))
    mask = torch.ones(2, 5, dtype=torch.bool)
    with torch.no_grad():
        assert torch.equal(read(source, mask, labels), model(source, mask, labels))


def test_other_kinds_of_models_and_missing_weights_are_refused(tmp_path):
    with pytest.raises(T5Error, match=r"config\.json"):
        read_hub(tmp_path)
    write_hub(tmp_path, small(), feed_forward_proj="gated-gelu")
    with pytest.raises(T5Error, match="gated MLPs"):
        read_hub(tmp_path)
    write_hub(tmp_path, small(), num_decoder_layers=3)
    with pytest.raises(T5Error, match="differ in their number of layers"):
        read_hub(tmp_path)
    write_hub(tmp_path, small(), d_ff=48)
    with pytest.raises(WeightsMismatch, match=r"DenseReluDense\.wi"):
        read_hub(tmp_path)
