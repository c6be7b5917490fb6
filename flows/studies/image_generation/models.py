"""The generator that a study's parameters describe."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from components.bases import specification
from components.errors import TesseraError
from flows.studies.image_generation.codes import Codes
from flows.studies.image_generation.params import TrainParams


def generator_description(params: TrainParams, codes: Codes, order: Sequence[int]) -> dict[str, Any]:
    """Return the description (components.bases) of a generator with its head and embedding.

    Args:
        params: Parameters of the study.
        codes: The arm's tokens.
        order: The numbers of a token in the order in which a head over dimensions predicts them.
    """
    head = _head(params, codes, order)
    if params.generator == "context_free":
        return specification(
            "components.language.context_free", head=head, positions=codes.positions, width=params.width
        )
    settings = {
        "embedding": _embedding(params, codes),
        "head": head,
        "classes": params.classes,
        "positions": codes.positions,
        "width": params.width,
        "layers": params.layers,
        "heads": params.heads,
        "class_dropout": params.class_dropout,
    }
    if params.generator == "masked_autoregressive":
        settings |= {
            "decoder_layers": params.decoder_layers,
            "class_tokens": params.class_tokens,
            "least_masked": params.least_masked,
        }
    return specification(f"components.language.{params.generator}", **settings)


def _head(params: TrainParams, codes: Codes, order: Sequence[int]) -> dict[str, Any]:
    module = f"components.nn.{params.head}"
    if params.head == "flow_head":
        return specification(
            module,
            condition_width=params.width,
            channels=codes.autoencoder.latent_dim,
            width=params.flow_width,
            layers=params.flow_layers,
            steps=params.flow_steps,
            draws=params.flow_draws,
        )
    sizes = codes.codebook_sizes
    if len(set(sizes)) != 1:
        raise TesseraError(
            f"{params.head} needs the same number of levels in every dimension; the tokens have {sizes}."
        )
    shape = {"condition_width": params.width, "dimensions": len(sizes), "levels": sizes[0]}
    if params.head == "independent_heads":
        return specification(module, **shape)
    sizes_of_head = {"width": params.head_width, "layers": params.head_layers, "heads": params.head_heads}
    return specification(module, **shape, **sizes_of_head, order=list(order))


def _embedding(params: TrainParams, codes: Codes) -> dict[str, Any]:
    module = "components.nn.token_embedding"
    if params.quantizer == "own":
        return specification(module, width=params.width, codebook_size=codes.codebook_sizes[0])
    quantizer = None if codes.quantizer is None else codes.quantizer_description()
    return specification(module, width=params.width, channels=codes.autoencoder.latent_dim, quantizer=quantizer)
