"""Llama and what descends from it (Vicuna) as `CausalLM`: published sizes, and weights in the Hub's layout.

    config.json                      architecture: "LlamaForCausalLM", sizes, id of the beginning-of-text token
    model.safetensors, or            weights by Hugging Face names
    model.safetensors.index.json     and the shards that it names

The beginning-of-text token becomes the model's start token: its embedding stands once more in the row behind the
vocabulary.

Letters: V tokens of the vocabulary, D width, H heads, C = D / H channels of one head.

Source: Touvron et al. 2023, "LLaMA: Open and Efficient Foundation Language Models", section 2.2 and table 2.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from components.errors import TesseraError
from components.language.causal_lm import CausalLM, CausalLMConfig
from components.nn.rotary import rotary_angles

_WEIGHTS, _INDEX = "model.safetensors", "model.safetensors.index.json"
_VALUES = {
    "model_type": "llama",
    "hidden_act": "silu",
    "rms_norm_eps": 1e-6,
    "rope_theta": 10_000.0,
    "rope_scaling": None,
    "attention_bias": False,
    "mlp_bias": False,
}
"""What `CausalLM` computes; values that a config leaves out are these."""


class LlamaError(TesseraError):
    """A directory holds no Llama that can be computed here."""


def llama_config(
    width: int, layers: int, heads: int, mlp: int, *, vocabulary_size: int = 32_000, context: int = 2048
) -> CausalLMConfig:
    """Return the configuration of a Llama: rotary, RMSNorm, SwiGLU, no bias, output layer of its own.

    Args:
        width: D.
        layers: Blocks.
        heads: H.
        mlp: Hidden channels of the gated MLP.
        vocabulary_size: V.
        context: Positions.
    """
    return CausalLMConfig(
        vocabulary_size, context, width, layers, heads,
        positions="rotary", mlp_ratio=mlp / width, norm="rms", activation="swiglu", bias=False,
    )  # fmt: skip


SIZES = {
    "7b": llama_config(4096, 32, 32, 11_008),
    "13b": llama_config(5120, 40, 40, 13_824),
    "33b": llama_config(6656, 60, 52, 17_920),
}
"""The first Llama, which Vicuna 1.3 is fine-tuned from."""


def load_llama(directory: Path, dtype: torch.dtype = torch.float32) -> CausalLM:
    """Read a Llama from a directory in the Hub's layout, in evaluation mode on the CPU.

    Args:
        directory: Holds `config.json` and safetensors.
        dtype: Precision of the weights.

    Raises:
        LlamaError: A file is missing, the config asks for what `CausalLM` does not compute, or tensors do not fit.
    """
    described = _read_json(directory / "config.json")
    config = _config(described, directory)
    with torch.device("meta"):
        model = CausalLM(config)
    found = {name: tensor.to(dtype) for name, tensor in _tensors(directory)}
    try:
        state = _converted(found, config, described.get("bos_token_id", 1))
        model.load_state_dict(state, assign=True)
    except (KeyError, RuntimeError, IndexError) as error:
        raise LlamaError(f"{directory}: the tensors are not those of its config.json: {error}.") from error
    # The table of angles is no weight: it was made on the meta device and is empty.
    model.angles = rotary_angles(torch.arange(config.context), config.width // config.heads)
    return model.eval()


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except (OSError, json.JSONDecodeError) as error:
        raise LlamaError(f"{path}: {error}. Expected a model in the Hub's layout.") from error


def _config(described: Mapping[str, Any], directory: Path) -> CausalLMConfig:
    heads = described.get("num_attention_heads")
    expected = {**_VALUES, "num_key_value_heads": heads, "tie_word_embeddings": False}
    for key, value in expected.items():
        if (given := described.get(key, value)) != value:
            raise LlamaError(f"{directory}/config.json: {key} is {given!r}; only {value!r} is computed here.")
    try:
        return llama_config(
            described["hidden_size"],
            described["num_hidden_layers"],
            described["num_attention_heads"],
            described["intermediate_size"],
            vocabulary_size=described["vocab_size"],
            context=described["max_position_embeddings"],
        )
    except KeyError as error:
        raise LlamaError(f"{directory}/config.json has no {error}; expected the config of a Llama.") from error


def _tensors(directory: Path) -> Iterator[tuple[str, Tensor]]:
    files = [_WEIGHTS]
    if (directory / _INDEX).is_file():
        files = sorted(set(_read_json(directory / _INDEX)["weight_map"].values()))
    for file in files:
        path = directory / file
        if Path(file).name != file or not path.is_file():
            raise LlamaError(
                f"{directory}: no file {file!r} beside config.json; expected {_WEIGHTS}, or {_INDEX} with its shards "
                "(weights as pickles are not read)."
            )
        with safe_open(path, framework="pt") as shard:
            for name in shard.keys():  # noqa: SIM118 (a shard is no mapping)
                yield name, shard.get_tensor(name)


def _converted(found: Mapping[str, Tensor], config: CausalLMConfig, start: int) -> dict[str, Tensor]:
    """Rename and rearrange tensors of the Hub's layout to those of `CausalLM`."""
    embedding = found["model.embed_tokens.weight"]
    state = {
        "embedding.weight": torch.cat([embedding, embedding[start : start + 1]]),
        "transformer.norm.weight": found["model.norm.weight"],
        "output.weight": found["lm_head.weight"],
    }
    for layer in range(config.layers):
        theirs, ours = f"model.layers.{layer}", f"transformer.blocks.{layer}"
        query, key, value, output = (found[f"{theirs}.self_attn.{name}_proj.weight"] for name in "qkvo")
        gate, up, down = (found[f"{theirs}.mlp.{name}_proj.weight"] for name in ("gate", "up", "down"))
        state |= {
            f"{ours}.attention_norm.weight": found[f"{theirs}.input_layernorm.weight"],
            f"{ours}.attention.query.weight": _interleaved(query, config.heads),
            f"{ours}.attention.key_value.weight": torch.cat([_interleaved(key, config.heads), value]),
            f"{ours}.attention.output.weight": output,
            f"{ours}.mlp_norm.weight": found[f"{theirs}.post_attention_layernorm.weight"],
            f"{ours}.mlp.input.weight": torch.cat([gate, up]),
            f"{ours}.mlp.output.weight": down,
        }
    return state


def _interleaved(weight: Tensor, heads: int) -> Tensor:
    """Reorder the output channels of each head from (first halves, second halves) to pairs that turn together.

    The Hub's rotation turns channel i with channel i + C / 2, ours channel 2i with 2i + 1.
    """
    halves = weight.unflatten(0, (heads, 2, -1))  # [H, 2, C / 2, D]
    return halves.transpose(1, 2).flatten(0, 2).contiguous()
