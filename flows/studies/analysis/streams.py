"""The documents of a stage, and the tokenizer that turns them into tokens.

Every data set has three parts: what tokenizers learn from, the corpus that is measured, and documents that nothing
learned from.

                learned from                   the corpus           held out
    images      training split                 test split           test split
    Multi30k    first training documents       the other ones       the other splits
    WikiText-2  validation part                test part            none

Grammars learn from the training images and from the corpus of a text, whose dictionary learned from other documents.

Letters: `B` images, `R` cells along a side, `D` documents.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from components.analysis.grammar_induction import shuffled, windows_of
from components.bases import construct, load_model, specification
from components.data import multi30k, tables
from components.data.images import decode_images, photograph_tiles
from components.errors import TesseraError
from flows.studies.analysis.params import IMAGES, TrainParams
from flows.studies.context import StageContext

Part = Literal["learn", "corpus", "held_out"]

LETTERS = "A-Za-zÀ-ɏ"
WORDS = rf" ?[{LETTERS}]+| ?[^{LETTERS}\s]+|\s"
"""Words of Latin script and runs of other signs, each with the one space before it."""
_BATCH = 128


class StreamError(TesseraError):
    """A stage was not given what its stream is read from."""


def numbers(seed: int, purpose: str) -> np.random.Generator:
    """Return the random numbers of one purpose of one seed."""
    return np.random.default_rng([seed, *purpose.encode()])


def torch_numbers(seed: int, purpose: str) -> torch.Generator:
    """Return torch's random numbers of one purpose of one seed."""
    return torch.Generator().manual_seed(int(numbers(seed, purpose).integers(2**62)))


def data_directory(stage: StageContext, corpus: str) -> Path:
    """Return the directory of the data set that a corpus is read from."""
    name = corpus if corpus in IMAGES else corpus.rsplit("-", 1)[0] if corpus.startswith("multi30k") else corpus
    if f"data/{name}" not in stage.inputs:
        given = ", ".join(sorted(stage.inputs)) or "nothing"
        raise StreamError(f"corpus {corpus!r} is read from {name}, the stage was given {given}; add it to `data`.")
    return stage.inputs[f"data/{name}"]


def texts(stage: StageContext, corpus: str, part: Part) -> list[str]:
    """Return the documents of a part of a text: descriptions of Multi30k, paragraphs of WikiText-2.

    Raises:
        StreamError: The text has no such part.
    """
    directory = data_directory(stage, corpus)
    if corpus.startswith("multi30k"):
        language = corpus.rsplit("-", 1)[1]
        if part == "held_out":
            found = [multi30k.descriptions(directory, split, language) for split in multi30k.SPLITS[1:]]
            return [text for texts in found for text in texts]
        training = multi30k.descriptions(directory, "train", language)
        count = stage.params.dictionary_documents
        return training[:count] if part == "learn" else training[count:]
    if part == "held_out":
        raise StreamError(f"{corpus} has two parts, one to learn from and one to measure; none is left to hold out.")
    split = {"learn": "validation", "corpus": "test"}[part]
    lines = "".join(tables.read_split(directory, split, ["text"])["text"]).split("\n")
    # Blank lines and headings stand between paragraphs.
    return [line.strip() for line in lines if line.strip() and not line.strip().startswith("=")]


def symbols(stage: StageContext, corpus: str) -> str:
    """Return every character of a text, held-out parts included, so that nothing is unknown in any of them."""
    parts: tuple[Part, ...] = ("learn", "corpus", "held_out") if corpus.startswith("multi30k") else ("learn", "corpus")
    return "".join(sorted(set().union(*(text for part in parts for text in texts(stage, corpus, part)))))


def tokenizer_file(corpus: str) -> str:
    """Return the name under which a training keeps the dictionary of a text."""
    return f"tokenizer-{corpus}.json"


def text_module(params: TrainParams) -> Any:
    """Import the module of components.tokenizers.text that an arm names."""
    return importlib.import_module(f"components.tokenizers.text.{params.tokenizer}")


@dataclass(frozen=True)
class Pictures:
    """Images of a data set, and by which names they are known.

    Attributes:
        images: uint8 (B, 3, H, W).
        names: Name of each image; tiles of one photograph bear the name of its scene.
    """

    images: Tensor
    names: list[str]


def pictures(stage: StageContext, corpus: str, part: Part, rows: np.ndarray | None = None) -> Pictures:
    """Return the images of a part of a data set.

    Args:
        stage: The stage.
        corpus: One of IMAGES.
        part: The training split to learn from, else the test split.
        rows: Rows to take; all by default. Of photographs, tiles of `image_side` pixels, it is always all.
    """
    directory, split = data_directory(stage, corpus), "train" if part == "learn" else "test"
    if corpus == "photos":
        frame = tables.read_split(directory, split, ["name", "image"])
        tiles, owners = photograph_tiles(frame["image"].to_list(), stage.params.image_side)
        return Pictures(tiles, [frame["name"][owner] for owner in owners])
    if corpus == "noto-emoji":
        # Every emoji counts: no tokenizer learned from any of them.
        frame = tables.read(directory, "noto_emoji.parquet", ["png32"]).rename({"png32": "image"})
    else:
        frame = tables.read_split(directory, split, ["image"])
    rows = np.arange(len(frame)) if rows is None else rows[rows < len(frame)]
    return Pictures(decode_images(frame["image"][rows].to_list()), [f"{split}-{row}" for row in rows.tolist()])


def picture_count(stage: StageContext, corpus: str, part: Part) -> int:
    """Return how many images a part of a data set has."""
    split = "train" if part == "learn" else "test"
    if corpus == "noto-emoji":
        return len(tables.read(data_directory(stage, corpus), "noto_emoji.parquet", ["name"]))
    return len(tables.read_split(data_directory(stage, corpus), split, ["image"]))


def image_tokenizer(stage: StageContext, trained: Path | None = None) -> torch.nn.Module:
    """Return the image tokenizer of a stage: the base of its seed, or what its training wrote, or a new one."""
    params: TrainParams = stage.params
    if params.stream == "image_patches" and trained is None:
        return construct(patch_description(params))
    if params.stream == "image_patches":
        return load_model(trained).to(stage.device)
    name = params.base_of(stage.seed)
    if f"bases/{name}" not in stage.inputs:
        given = ", ".join(sorted(stage.inputs)) or "nothing"
        raise StreamError(
            f"the tokenizer of seed {stage.seed} is {name}, the stage was given {given}; add it to bases."
        )
    return load_model(stage.inputs[f"bases/{name}"]).to(stage.device)


def patch_description(params: TrainParams) -> dict[str, Any]:
    """Describe the tokenizer that clusters raw patches."""
    quantizer = specification(
        "components.quantizers.kmeans",
        codebook_size=params.vocabulary_size,
        code_dim=3 * params.patch_side**2,
        iterations=params.patch_iterations,
    )
    return specification(
        "components.tokenizers.image.patch_grid",
        quantizer=quantizer,
        image_side=params.image_side,
        patch_side=params.patch_side,
    )


@torch.no_grad()
def image_tokens(tokenizer: torch.nn.Module, images: Tensor, device: str) -> Tensor:
    """Return the tokens of images (B, 3, H, W) as grids, int64 (B, R, R) on the CPU."""
    found = [tokenizer.encode(part.to(device)).cpu() for part in images.split(_BATCH)]
    return torch.cat(found).unflatten(1, (tokenizer.rows, tokenizer.rows))


def crops(grids: Tensor, tokens: int) -> Tensor:
    """Cut grids (B, R, R) into square crops, row by row, each read row by row: (B * crops, tokens).

    Raises:
        StreamError: So many tokens are no square, or the square does not fit into the grid.
    """
    side = round(tokens**0.5)
    if side**2 != tokens or side > grids.shape[1]:
        raise StreamError(
            f"sentence_tokens is {tokens} for grids of {grids.shape[1]} x {grids.shape[2]}; expected the square of at "
            f"most {grids.shape[1]}."
        )
    fitting = grids.shape[1] // side * side
    parts = grids[:, :fitting, :fitting].unflatten(2, (-1, side)).unflatten(1, (-1, side))
    return parts.transpose(2, 3).flatten(3).flatten(0, 2)


def text_documents(tokenizer: Any, documents: list[str]) -> list[Tensor]:
    """Return the tokens of each text."""
    return [torch.tensor(tokenizer.encode(text), dtype=torch.int64) for text in documents]


def sentences(stage: StageContext, tokenizer: Any, count: int, *, held_out: bool) -> tuple[Tensor, list[str]]:
    """Return sentences of the arm's grammar corpus, (B, n) with B at most `count`, and the name of each.

    Sentences to learn from are drawn by the seed, held-out ones are the same for all seeds. Where the stream is
    shuffled, the tokens of each sentence are.
    """
    params: TrainParams = stage.params
    corpus = params.grammar_corpus
    if params.stream == "text":
        documents = texts(stage, corpus, "held_out" if held_out else "corpus")
        found, owners = windows_of(text_documents(tokenizer, documents), params.sentence_tokens)
        names = [f"{corpus}-{owner}" for owner in owners.tolist()]
    else:
        part = "held_out" if held_out else "learn"
        each = max(1, tokenizer.rows // round(params.sentence_tokens**0.5)) ** 2
        rows = np.arange(picture_count(stage, corpus, part))
        if not held_out:
            rows = numbers(stage.seed, "pictures of the grammar").permutation(rows)
        shown = pictures(stage, corpus, part, np.sort(rows[: -(-count // each)]))
        found = crops(image_tokens(tokenizer, shown.images, stage.device), params.sentence_tokens)
        names = [name for name in shown.names for _ in range(each)]
    chosen = torch.arange(len(found))
    if not held_out:
        chosen = torch.randperm(len(found), generator=torch_numbers(stage.seed, "sentences of the grammar"))
    chosen = chosen[:count]
    found = found[chosen]
    if params.shuffled:
        found = shuffled(found, torch_numbers(stage.seed, f"shuffle {held_out}"))
    return found, [f"{names[row]}-{row}" for row in chosen.tolist()]
