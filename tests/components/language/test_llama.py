import json

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from components.language.causal_lm import CausalLM
from components.language.llama import SIZES, LlamaError, load_llama

V, D, LAYERS, HEADS, MLP, BOS = 23, 16, 2, 2, 20, 1
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_act": "silu",
    "hidden_size": D,
    "intermediate_size": MLP,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "vocab_size": V,
    "max_position_embeddings": 32,
    "rms_norm_eps": 1e-6,
    "bos_token_id": BOS,
    "tie_word_embeddings": False,
}


@pytest.fixture
def weights() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = {"model.embed_tokens": (V, D), "lm_head": (V, D), "model.norm": (D,)}
    for layer in range(LAYERS):
        inside = f"model.layers.{layer}"
        shapes |= {f"{inside}.self_attn.{name}_proj": (D, D) for name in "qkvo"}
        shapes |= {f"{inside}.mlp.{name}_proj": (MLP, D) for name in ("gate", "up")}
        shapes |= {f"{inside}.mlp.down_proj": (D, MLP)}
        shapes |= {f"{inside}.{name}": (D,) for name in ("input_layernorm", "post_attention_layernorm")}
    return {f"{name}.weight": torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def write(directory, weights, shards: int = 1, **changes) -> None:
    (directory / "config.json").write_text(json.dumps(CONFIG | changes))
    names = sorted(weights)
    if shards == 1:
        save_file(weights, directory / "model.safetensors")
        return
    files = {name: f"model-{place % shards:05d}.safetensors" for place, name in enumerate(names)}
    for file in set(files.values()):
        save_file({name: weights[name] for name in names if files[name] == file}, directory / file)
    (directory / "model.safetensors.index.json").write_text(json.dumps({"weight_map": files}))


def rms(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt() * weight


def turned(x: torch.Tensor) -> torch.Tensor:
    """Rotate heads (H, T, C) as the Hub's Llama does: channel i with channel i + C / 2."""
    half = x.shape[-1] // 2
    angles = torch.arange(x.shape[1])[:, None] / 10_000 ** (torch.arange(half) / half)
    first, second = x[..., :half], x[..., half:]
    return torch.cat([first * angles.cos() - second * angles.sin(), second * angles.cos() + first * angles.sin()], -1)


def published_forward(weights: dict[str, torch.Tensor], tokens: torch.Tensor) -> torch.Tensor:
    """The published architecture, straight from the weights: logits (T, V) behind tokens (T,)."""
    x = weights["model.embed_tokens.weight"][tokens]
    future = torch.ones(len(tokens), len(tokens), dtype=torch.bool).triu(1)
    for layer in range(LAYERS):
        get = lambda name, layer=layer: weights[f"model.layers.{layer}.{name}.weight"]  # noqa: E731
        normed = rms(x, get("input_layernorm"))
        query, key, value = (
            (normed @ get(f"self_attn.{name}_proj").T).unflatten(-1, (HEADS, -1)).transpose(0, 1) for name in "qkv"
        )
        scores = turned(query) @ turned(key).transpose(1, 2) / (D // HEADS) ** 0.5
        heads = scores.masked_fill(future, -torch.inf).softmax(-1) @ value
        x = x + heads.transpose(0, 1).flatten(1) @ get("self_attn.o_proj").T
        normed = rms(x, get("post_attention_layernorm"))
        x = x + (F.silu(normed @ get("mlp.gate_proj").T) * (normed @ get("mlp.up_proj").T)) @ get("mlp.down_proj").T
    return rms(x, weights["model.norm.weight"]) @ weights["lm_head.weight"].T


@pytest.mark.parametrize("shards", [1, 3])
@torch.no_grad()
def test_a_model_in_the_hubs_layout_gives_the_logits_of_the_published_architecture(weights, tmp_path, shards):
    write(tmp_path, weights, shards)
    model = load_llama(tmp_path)
    tokens = torch.randint(V, (9,), generator=torch.Generator().manual_seed(1))
    expected = published_forward(weights, torch.cat([torch.tensor([BOS]), tokens]))
    assert (model(model.with_start(tokens[None]))[0] - expected).abs().max() < 1e-3 * expected.abs().max()
    assert not model.training


def test_half_precision_is_kept(weights, tmp_path):
    write(tmp_path, weights)
    model = load_llama(tmp_path, torch.bfloat16)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    assert model(torch.tensor([[V, 3]])).isfinite().all()


@pytest.mark.parametrize(("size", "parameters"), [("7b", 6.738e9), ("13b", 13.016e9), ("33b", 32.529e9)])
def test_published_sizes_have_the_published_number_of_parameters(size, parameters):
    with torch.device("meta"):
        model = CausalLM(SIZES[size])
    assert sum(parameter.numel() for parameter in model.parameters()) == pytest.approx(parameters, rel=1e-3)


@pytest.mark.parametrize(
    ("key", "value"),
    [("rms_norm_eps", 1e-5), ("rope_theta", 1e6), ("num_key_value_heads", 1), ("model_type", "gpt2")],
)
def test_what_is_not_computed_here_is_refused(weights, tmp_path, key, value):
    write(tmp_path, weights, **{key: value})
    with pytest.raises(LlamaError, match=f"{key} is .*; only"):
        load_llama(tmp_path)


def test_missing_files_missing_tensors_and_paths_out_of_the_directory_are_refused(weights, tmp_path):
    with pytest.raises(LlamaError, match="Hub's layout"):
        load_llama(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    with pytest.raises(LlamaError, match="pickles are not read"):
        load_llama(tmp_path)
    write(tmp_path, {name: tensor for name, tensor in weights.items() if name != "model.norm.weight"})
    with pytest.raises(LlamaError, match=r"model\.norm\.weight"):
        load_llama(tmp_path)
    write(tmp_path, weights, vocab_size=V + 1)
    with pytest.raises(LlamaError, match="size mismatch"):
        load_llama(tmp_path)
    index = {"weight_map": {"lm_head.weight": "../other.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(LlamaError, match=r"no file '\.\./other\.safetensors'"):
        load_llama(tmp_path)
