"""`tessera ask`: put a question about a test scene to one of the small vision-language models."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.bases import BASES
from components.data import tables
from components.data.images import decode_images, encode_png
from components.errors import TesseraError, did_you_mean
from components.multimodal.vlm import answer, load_vlm
from components.multimodal.words import UnknownWord
from flows.declarations.workspace import Workspace

_MODEL = "components.multimodal.vlm"
_RECIPE = "vlm"
_SPLIT = "test"
_LARGER = 8  # times that a pixel is repeated: scenes of 48 pixels are hard to look at
_EXAMPLES = 3


class AskingError(TesseraError):
    """A question cannot be put as asked."""


@dataclass(frozen=True)
class Asked:
    """A question, answered.

    Attributes:
        question: The question.
        answer: The model's likeliest word.
        probability: Its probability.
        known: The right answer, where the data set asks the same question about this scene; "" otherwise.
        caption: The scene's caption.
        picture: File with the scene.
    """

    question: str
    answer: str
    probability: float
    known: str
    caption: str
    picture: Path


def ask(root: Path, base: str, scene: int, question: str, picture: Path | None = None) -> Asked:
    """Answer a question about a scene of the test split, and write the scene as a PNG file.

    Args:
        root: The workspace.
        base: Name of a vision-language model in params/bases.yaml.
        scene: Number of the scene, from 0.
        question: In the words of the data set's questions.
        picture: File to write; below .tessera/ask/ where None.

    Raises:
        UnknownBase: There is no such base.
        AskingError: The base is no vision-language model or has not been made, there is no such scene, the model does
            not know a word, the data set has not been made, or the picture cannot be written there.
    """
    directory, data = _model(root, base)
    row = _scene(data, scene)
    own = {asked["question"]: asked["answer"] for asked in row["questions"]}
    examples = _examples({asked["type"]: asked["question"] for asked in row["questions"]})
    target = root / ".tessera" / "ask" / f"{data.name}-{scene}.png" if picture is None else picture
    _writable(target, make=picture is None)
    image = decode_images([row["image"]])[0]
    if not question.strip():
        raise AskingError(f"the question is empty. {examples}")
    seeing = load_vlm(directory)
    try:
        word, probability = answer(seeing, image, question)
    except UnknownWord as error:
        raise AskingError(f"{error} The model knows only the words of its scenes. {examples}") from error
    target.write_bytes(encode_png(image.repeat_interleave(_LARGER, 1).repeat_interleave(_LARGER, 2)))
    return Asked(question, word, probability, own.get(question, ""), row["caption"], target)


def _model(root: Path, name: str) -> tuple[Path, Path]:
    """Return the folders of a vision-language model and of the data set whose scenes it knows."""
    workspace = Workspace.load(root)
    declared = workspace.base(name)
    models = [each for each, base in workspace.bases.items() if base.recipe == _RECIPE]
    if declared.recipe != _RECIPE or not declared.data:
        raise AskingError(
            f"{name} ({declared.title}) is no vision-language model; expected one of {', '.join(models) or 'none'}."
            f"{did_you_mean(name, models)}"
        )
    directory = root / BASES.name / name
    for path in (directory, *(root / BASES.name / each for each in declared.bases)):
        if not (path / "config.json").is_file():
            raise AskingError(f"{path.relative_to(root)} has not been made; make it with: tessera rebuild-base {name}")
    built = json.loads((directory / "config.json").read_text()).get("build")
    if built != _MODEL:
        raise AskingError(f"{directory.relative_to(root)} holds a {built}; make it again: tessera rebuild-base {name}")
    data = root / "data" / declared.data[0]
    if not data.is_dir():
        raise AskingError(f"data/{data.name} has not been made; make it with: dvc repro data-{data.name}")
    return directory, data


def _scene(data: Path, number: int) -> dict[str, Any]:
    """Return a scene of the test split."""
    rows = tables.read_split(data, _SPLIT, ("image", "caption", "questions"))
    if not 0 <= number < len(rows):
        raise AskingError(f"--scene {number}: the test split of {data.name} has the scenes 0 to {len(rows) - 1}.")
    return rows.row(number, named=True)


def _writable(target: Path, *, make: bool) -> None:
    if make:
        target.parent.mkdir(parents=True, exist_ok=True)
    if target.suffix.lower() != ".png" or not target.parent.is_dir() or target.is_dir():
        raise AskingError(f"--picture {target}: expected a file name that ends in .png, in a folder that exists.")


def _examples(by_type: Mapping[str, str]) -> str:
    return f"Ask for example: {' '.join(list(by_type.values())[:_EXAMPLES])}"
