"""The corpora of a stage as tokens, all of one length, and how well an image tokenizer shows what it was given."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from components.analysis.linearisation import reading_order
from components.analysis.token_corpus import TokenCorpus
from components.data.pixels import to_unit
from components.metrics.image import psnr
from components.nn.conv_autoencoder import cell_means
from flows.studies.analysis.params import EvaluateParams
from flows.studies.analysis.streams import (
    Pictures,
    StreamError,
    image_tokenizer,
    image_tokens,
    numbers,
    picture_count,
    pictures,
    text_module,
    texts,
    tokenizer_file,
)
from flows.studies.context import StageContext

RANDOM_DOCUMENT = 64


def tokenizer_of(stage: StageContext, corpus: str) -> Any:
    """Return what the stage reads a corpus with; None for a random source."""
    if stage.params.stream == "random":
        return None
    if stage.params.stream == "text":
        return text_module(stage.params).load(stage.inputs["train"] / tokenizer_file(corpus))
    return image_tokenizer(stage, stage.inputs.get("train"))


def vocabulary_of(stage: StageContext, tokenizer: Any) -> int:
    """Return V of a stage's stream."""
    if tokenizer is None:
        return stage.params.vocabulary_size
    return len(tokenizer.vocabulary) if stage.params.stream == "text" else tokenizer.codebook_size


def read_corpus(stage: StageContext, corpus: str, tokenizer: Any) -> dict[str, TokenCorpus]:
    """Return a corpus of exactly `tokens` tokens in each of its linearisations; text has one, named "raster".

    The documents are drawn by the seed. Images come from the test split; where that has too few, the rest comes from
    the training split.

    Raises:
        StreamError: The data set has fewer tokens.
    """
    params: EvaluateParams = stage.params
    size = vocabulary_of(stage, tokenizer)
    order = numbers(stage.seed, f"documents of {corpus}")
    if params.stream == "random":
        draws = order.choice(size, size=params.tokens, p=law_shares(params, corpus))
        cut = np.split(draws, range(RANDOM_DOCUMENT, params.tokens, RANDOM_DOCUMENT))
        read = {"raster": TokenCorpus.of(cut, size)}
    elif params.stream == "text":
        read = {"raster": _text_corpus(stage, corpus, tokenizer, order, size)}
    else:
        read = _image_corpora(stage, corpus, tokenizer, order, size)
    if params.shuffled:
        read = {name: part.shuffled(numbers(stage.seed, f"shuffle {corpus}")) for name, part in read.items()}
    return read


def law_shares(params: EvaluateParams, law: str) -> np.ndarray:
    """Return the probabilities of a random source, (V,)."""
    ranks = np.arange(1, params.vocabulary_size + 1, dtype=np.float64)
    weights = np.ones_like(ranks) if law == "uniform" else ranks**-params.zipf_exponent
    return weights / weights.sum()


def reconstruction_gain(stage: StageContext, corpus: str, tokenizer: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return the PSNR of decoded test images and by how much it exceeds that of each cell's mean colour, both in dB."""
    rows = np.arange(min(stage.params.gate_images, picture_count(stage, corpus, "corpus")))
    images = pictures(stage, corpus, "corpus", rows).images[: stage.params.gate_images]
    grids = image_tokens(tokenizer, images, stage.device).flatten(1)
    with torch.no_grad():
        parts = [tokenizer.decode(part.to(stage.device)).clamp(0, 1).cpu() for part in grids.split(128)]
    quality = psnr(torch.cat(parts), images)
    floor = psnr(cell_means(to_unit(images), images.shape[-1] // tokenizer.rows), images)
    return quality.numpy(), (quality - floor).numpy()


def _text_corpus(
    stage: StageContext, corpus: str, tokenizer: Any, order: np.random.Generator, size: int
) -> TokenCorpus:
    documents = texts(stage, corpus, "corpus")
    wanted, found, names = stage.params.tokens, [], []
    for row in order.permutation(len(documents)).tolist():
        if wanted <= 0:
            break
        found.append(tokenizer.encode(documents[row]))
        names.append(f"{corpus}-{row}")
        wanted -= len(found[-1])
    _enough(corpus, sum(map(len, found)), stage.params.tokens)
    return TokenCorpus.of(found, size, names).first(stage.params.tokens)


def _image_corpora(
    stage: StageContext, corpus: str, tokenizer: Any, order: np.random.Generator, size: int
) -> dict[str, TokenCorpus]:
    params: EvaluateParams = stage.params
    shown = _drawn_pictures(stage, corpus, tokenizer, order)
    grids = image_tokens(tokenizer, shown.images, stage.device).flatten(1).numpy()
    grids = grids[: -(-params.tokens // grids.shape[1])]
    _enough(corpus, grids.size, params.tokens)
    read = {}
    for name in params.linearisations:
        cells = reading_order(name, tokenizer.rows)
        whole = TokenCorpus.of(list(grids[:, cells]), size, shown.names[: len(grids)])
        read[name] = whole.first(params.tokens)
    return read


def _drawn_pictures(stage: StageContext, corpus: str, tokenizer: Any, order: np.random.Generator) -> Pictures:
    """Draw as many images as the tokens need, of the test split first."""
    wanted = -(-stage.params.tokens // tokenizer.cells)
    if corpus == "photos":
        tiles = pictures(stage, corpus, "corpus")
        rows = order.permutation(len(tiles.images))
        return Pictures(tiles.images[torch.from_numpy(rows)], [f"{tiles.names[row]}-{row}" for row in rows])
    found: list[Pictures] = []
    for part in ("corpus", "learn"):
        rows = order.permutation(picture_count(stage, corpus, part))[:wanted]
        if len(rows) and not (part == "learn" and corpus == "noto-emoji"):
            found.append(pictures(stage, corpus, part, rows))
            wanted -= len(rows)
    return Pictures(torch.cat([part.images for part in found]), [name for part in found for name in part.names])


def _enough(corpus: str, found: int, wanted: int) -> None:
    if found < wanted:
        raise StreamError(f"{corpus} has {found} tokens, 'tokens' asks for {wanted}; set it to at most {found}.")
