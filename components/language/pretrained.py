"""A language model on disk: weights and description, its tokenizer, and the special tokens behind its vocabulary.

    model.safetensors  config.json      as every model (components.bases)
    tokenizer.json                      as the tokenizer's module saves it
    language.json                       {"tokenizer": "components.tokenizers.text.bpe", "specials": ["<eos>", ...]}

Special tokens have the ids behind the tokenizer's tokens, in the order of the list. They are predicted like others and
stand for no bytes. The model's start token, which is read and never predicted, has the id behind them.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.bases import ModelDescriptionError, load_model
from components.language.causal_lm import CausalLM
from components.training import atomic

TOKENIZER_FILE, DESCRIPTION_FILE = "tokenizer.json", "language.json"


@dataclass(frozen=True)
class LanguageModel:
    """A causal language model with what turns text into its tokens.

    Attributes:
        model: In evaluation mode, float32, on the CPU.
        tokenizer: Tokenizer of symbols (bytes as latin-1), with `vocabulary`, `encode` and `decode`.
        specials: Id of each special token by name.
    """

    model: CausalLM
    tokenizer: Any
    specials: dict[str, int]


def special_ids(vocabulary_size: int, specials: Sequence[str]) -> dict[str, int]:
    """Return the ids of special tokens behind a tokenizer's vocabulary."""
    return {name: vocabulary_size + place for place, name in enumerate(specials)}


def save_tokens(directory: Path, tokenizer: Any, module: str, specials: Sequence[str]) -> None:
    """Write the tokenizer and the special tokens beside a model.

    Args:
        directory: Directory of the model.
        tokenizer: Has `save(path)`.
        module: Module of `components.tokenizers` whose `load(path)` reads it again.
        specials: Names of the special tokens, in the order of their ids.
    """
    tokenizer.save(directory / TOKENIZER_FILE)
    description = {"tokenizer": module, "specials": list(specials)}
    with atomic.replacing(directory / DESCRIPTION_FILE) as temporary:
        Path(temporary).write_text(json.dumps(description, indent=1) + "\n")


def load_language_model(directory: Path) -> LanguageModel:
    """Read a language model with its tokenizer, such as `load_language_model(Path("bases/lm-code-2m"))`.

    Raises:
        ModelDescriptionError: The directory holds no language model, or model and tokenizer do not fit.
        WeightsMismatch: The weights do not belong to the description.
    """
    directory = Path(directory)
    path = directory / DESCRIPTION_FILE
    try:
        described = json.loads(path.read_text())
    except (OSError, json.JSONDecodeError) as error:
        raise ModelDescriptionError(f"{path}: {error}. Expected the directory of a language model.") from error
    module = described["tokenizer"]
    # A description may come from elsewhere: only our own tokenizers are ever imported for it.
    if not module.startswith("components.tokenizers."):
        raise ModelDescriptionError(f"{path}: {module!r} is no module of components.tokenizers; refusing to import it.")
    tokenizer = importlib.import_module(module).load(directory / TOKENIZER_FILE)
    model = load_model(directory)
    specials = special_ids(len(tokenizer.vocabulary), described["specials"])
    expected = len(tokenizer.vocabulary) + len(specials)
    if not isinstance(model, CausalLM) or model.vocabulary_size != expected:
        raise ModelDescriptionError(
            f"{directory}: the tokenizer and {len(specials)} special tokens make a vocabulary of {expected}, "
            f"the model has {getattr(model, 'vocabulary_size', 'none')}; the files do not belong together."
        )
    return LanguageModel(model, tokenizer, specials)
