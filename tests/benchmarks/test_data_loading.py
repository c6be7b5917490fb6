"""From Parquet to batches: pictures, utterances and text, beside a plain torch Dataset and Hugging Face datasets.

A round reads the table and gives every batch of one epoch, in the same order on both sides and with equal content. Ours
decodes a table once, as a whole, and takes batches by index; a plain Dataset decodes row by row and collates. Datasets
has its Arrow files ready from the warm-up. It is optional and no part of the lock; without it those rows are skipped:

    pip install --no-deps --target peers datasets==5.2.0 dill multiprocess xxhash
    PYTHONPATH=peers make bench

How much of a training step waits for its batch is measured inside `fit`, at the smallest model the papers train.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import limits
import numpy as np
import polars as pl
import pytest
import torch
import turns
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader, Dataset

from components.data import parquet
from components.data.images import decode_image, decode_images, random_flip
from components.data.png import encode
from components.data.speech import FULL_SCALE, SCHEMA, Speech, speech
from components.language.causal_lm import CausalLM, CausalLMConfig
from components.language.corpus_windows import encode_documents
from components.language.fill_in_middle import END
from components.language.stream_windows import StreamWindows
from components.quantizers.vq import VectorQuantizer
from components.speech.ssl_encoder import SSLEncoder
from components.tokenizers.image.one_d import OneDTokenizer
from components.tokenizers.text import bpe
from components.tokenizers.text.byte_level import BYTES
from components.training.loop import Optimisation, fit

pytestmark = pytest.mark.benchmark_bar

PICTURES, SIDE = 4096, 32
UTTERANCES, LONGEST = 1024, 12_000
DOCUMENTS, WORDS_OF_DOCUMENT, VOCABULARY, WINDOW = 64, 2_000, 512, 64
BATCH, ROUNDS, BAR, MOST_WAITING_PERCENT = 64, 5, 1.0, 5.0
STEPS = 40


class Rows(Dataset):
    """A plain Dataset: the columns as lists, one row after the other through a function."""

    def __init__(self, rows: list, turn: Callable) -> None:
        self._rows, self._turn = rows, turn

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, place: int):
        return self._turn(self._rows[place])


def order(count: int) -> Tensor:
    return torch.randperm(count, generator=torch.Generator().manual_seed(0))


def loader(dataset, count: int, collate=None) -> Iterator:
    """Batches of a Dataset in the order of all sides, in this process, as ours are made."""
    return iter(DataLoader(dataset, BATCH, sampler=order(count).tolist(), collate_fn=collate))


def datasets_from(path: Path, tmp_path: Path):
    """Return Hugging Face datasets' view of a table, without asking its hub for anything."""
    os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
    datasets = pytest.importorskip("datasets", reason="the peer is not installed")
    datasets.disable_progress_bars()
    return datasets, lambda: datasets.Dataset.from_parquet(str(path), cache_dir=str(tmp_path / "cache"))


def same(ours: Iterator[Tensor], theirs: Iterator[Tensor]) -> None:
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other)


def drain(batches: Iterator) -> int:
    return sum(len(batch) for batch in batches)


def record(
    benchmark, name: str, times: dict[str, list[float]], amount: int, *, bar: float = BAR, **more: float
) -> None:
    found = turns.facts(times["ours"], times["peer"], amount=amount)
    benchmark.extra_info.update({name: found} | more if name else found | more)
    print(benchmark.extra_info)
    assert found["ratio"] >= bar


# Pictures


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    """Smooth pictures, so that their PNG files are as long as those of photographs."""
    generator = np.random.default_rng(0)
    coarse = generator.integers(0, 256, (PICTURES, 8, 8, 3)).astype(np.float32)
    smooth = coarse.repeat(4, 1).repeat(4, 2) + generator.normal(0, 6, (PICTURES, SIDE, SIDE, 3))
    path = tmp_path_factory.mktemp("pictures") / "train.parquet"
    parquet.write(pl.DataFrame({"image": encode(smooth.clip(0, 255).astype(np.uint8))}), path)
    return path


def own_pictures(path: Path) -> Iterator[Tensor]:
    images = decode_images(parquet.read(path, ["image"])["image"].to_list())
    for rows in order(PICTURES).split(BATCH):
        yield images[rows]


def plain_pictures(path: Path) -> Iterator[Tensor]:
    def decoded(file: bytes) -> Tensor:
        return torch.from_numpy(np.asarray(decode_image(file)).copy()).permute(2, 0, 1)

    return loader(Rows(parquet.read(path, ["image"])["image"].to_list(), decoded), PICTURES)


def test_pictures_from_parquet_to_batches(one_thread, pictures, benchmark):
    same(own_pictures(pictures), plain_pictures(pictures))
    files = parquet.read(pictures, ["image"])["image"].to_list()
    works = {
        "ours": lambda: drain(own_pictures(pictures)),
        "peer": lambda: drain(plain_pictures(pictures)),
        "decoding": lambda: [np.asarray(decode_image(file)) for file in files],
    }
    times = turns.in_turns(benchmark, works, ROUNDS)
    alone = turns.facts(times["decoding"], amount=PICTURES)["ours"]
    record(benchmark, "plain", times, PICTURES, limit=alone)


def test_pictures_from_parquet_beside_datasets(one_thread, pictures, benchmark, tmp_path):
    datasets, opened = datasets_from(pictures, tmp_path)

    def peer() -> Iterator[Tensor]:
        table = opened().cast_column("image", datasets.Image()).with_format("torch")
        return (batch["image"] for batch in loader(table, PICTURES))

    same(own_pictures(pictures), peer())
    works = {"ours": lambda: drain(own_pictures(pictures)), "peer": lambda: drain(peer())}
    record(benchmark, "", turns.in_turns(benchmark, works, 3), PICTURES)


# Utterances


@pytest.fixture(scope="module")
def utterances(tmp_path_factory) -> Path:
    generator = np.random.default_rng(0)
    lengths = generator.integers(LONGEST // 4, LONGEST, UTTERANCES)
    empty = {"words": [], "phonemes": [], "sources": []}
    rows = [
        {"utterance": f"train/{number}", "split": "train", "speaker": "", "text": "",
         "samples": generator.integers(-9000, 9000, length).tolist(), **empty}
        for number, length in enumerate(lengths)
    ]  # fmt: skip
    path = tmp_path_factory.mktemp("speech") / "speech.parquet"
    parquet.write(pl.DataFrame(rows, schema=SCHEMA), path)
    return path


def own_utterances(path: Path) -> Iterator[Tensor]:
    heard = speech(parquet.read(path, list(SCHEMA)))
    for rows in order(UTTERANCES).split(BATCH):
        yield heard.padded(rows)[0]


def padded(batch: list[Tensor]) -> Tensor:
    return pad_sequence(batch, batch_first=True)


def plain_utterances(path: Path) -> Iterator[Tensor]:
    def waveform(samples: np.ndarray) -> Tensor:
        return torch.from_numpy(samples).float() / FULL_SCALE

    # Arrays, not lists of numbers: what a careful Dataset holds.
    column = parquet.read(path, ["samples"])["samples"]
    return loader(Rows([row.to_numpy().copy() for row in column], waveform), UTTERANCES, padded)


def test_utterances_from_parquet_to_batches(one_thread, utterances, benchmark):
    same(own_utterances(utterances), plain_utterances(utterances))
    works = {
        "ours": lambda: drain(own_utterances(utterances)),
        "peer": lambda: drain(plain_utterances(utterances)),
    }
    times = turns.in_turns(benchmark, works, ROUNDS)
    samples = len(speech(parquet.read(utterances, list(SCHEMA))).samples)
    # Two bytes of a sample are read, four are written.
    limit = UTTERANCES * limits.bytes_per_second() / (6 * samples)
    record(benchmark, "plain", times, UTTERANCES, bar=0, limit=limit)


def test_utterances_from_parquet_beside_datasets(one_thread, utterances, benchmark, tmp_path):
    _, opened = datasets_from(utterances, tmp_path)

    def collate(batch: list[dict]) -> Tensor:
        return padded([row["samples"].float() / FULL_SCALE for row in batch])

    def peer() -> Iterator[Tensor]:
        return loader(opened().select_columns(["samples"]).with_format("torch"), UTTERANCES, collate)

    same(own_utterances(utterances), peer())
    works = {"ours": lambda: drain(own_utterances(utterances)), "peer": lambda: drain(peer())}
    record(benchmark, "", turns.in_turns(benchmark, works, 3), UTTERANCES, bar=0)


# Text


@pytest.fixture(scope="module")
def documents(tmp_path_factory) -> tuple[Path, bpe.BytePairTokenizer]:
    generator = np.random.default_rng(0)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
    words = ["".join(generator.choice(letters, length)) for length in generator.integers(2, 9, 3000)]
    weights = 1 / np.arange(1, len(words) + 1)
    texts = [" ".join(generator.choice(words, WORDS_OF_DOCUMENT, p=weights / weights.sum())) for _ in range(DOCUMENTS)]
    path = tmp_path_factory.mktemp("text") / "train.parquet"
    parquet.write(pl.DataFrame({"text": texts}), path)
    return path, bpe.train(texts[:16], VOCABULARY, alphabet=BYTES, pieces=bpe.WORD_PIECES)


def own_windows(path: Path, tokenizer: bpe.BytePairTokenizer) -> Iterator[Tensor]:
    texts = parquet.read(path, ["text"])["text"].to_list()
    windows = StreamWindows(encode_documents(texts, tokenizer, {END: VOCABULARY}), WINDOW).disjoint()
    for rows in order(len(windows)).split(BATCH):
        yield windows[rows]


def plain_windows(path: Path, tokenizer: bpe.BytePairTokenizer) -> Iterator[Tensor]:
    stream = []
    for text in parquet.read(path, ["text"])["text"]:
        stream += [*tokenizer._tokenizer.encode(text).ids, VOCABULARY]
    starts = list(range(0, len(stream) // WINDOW * WINDOW, WINDOW))
    return loader(Rows(starts, lambda start: torch.tensor(stream[start : start + WINDOW])), len(starts))


def test_windows_of_text_from_parquet_to_batches(one_thread, documents, benchmark):
    same(own_windows(*documents), plain_windows(*documents))
    count = drain(own_windows(*documents))
    works = {"ours": lambda: drain(own_windows(*documents)), "peer": lambda: drain(plain_windows(*documents))}
    times = turns.in_turns(benchmark, works, ROUNDS)
    record(benchmark, "plain", times, count, limit=limits.bytes_per_second() / (16 * WINDOW))


def test_windows_of_text_beside_datasets(one_thread, documents, benchmark, tmp_path):
    path, tokenizer = documents
    _, opened = datasets_from(path, tmp_path)
    library = tokenizer._tokenizer

    def encoded(rows: dict) -> dict:
        return {"ids": [[*found.ids, VOCABULARY] for found in library.encode_batch(rows["text"])]}

    def windows(rows: dict) -> dict:
        stream = [token for ids in rows["ids"] for token in ids]
        return {"ids": [stream[at : at + WINDOW] for at in range(0, len(stream) // WINDOW * WINDOW, WINDOW)]}

    def peer() -> Iterator[Tensor]:
        # As its documentation groups texts; one batch, so that no window is lost at a boundary.
        table = opened().map(encoded, batched=True, remove_columns="text", load_from_cache_file=False)
        table = table.map(windows, batched=True, batch_size=DOCUMENTS, load_from_cache_file=False)
        return (batch["ids"] for batch in loader(table.with_format("torch"), len(table)))

    before = os.environ.get("RAYON_NUM_THREADS")
    os.environ["RAYON_NUM_THREADS"] = "1"
    try:
        same(own_windows(*documents), peer())
        count = drain(own_windows(*documents))
        works = {"ours": lambda: drain(own_windows(*documents)), "peer": lambda: drain(peer())}
        times = turns.in_turns(benchmark, works, 3)
    finally:
        if before is None:
            del os.environ["RAYON_NUM_THREADS"]
        else:
            os.environ["RAYON_NUM_THREADS"] = before
    record(benchmark, "", times, count)


# Waiting


def image_training(path: Path) -> tuple[nn.Module, Callable, Callable]:
    images = decode_images(parquet.read(path, ["image"])["image"].to_list())
    model = OneDTokenizer(
        quantizer=VectorQuantizer(256, 16), image_side=SIDE, patch_size=8, tokens=32, width=64, layers=3, heads=4,
        drop="none",
    )  # fmt: skip

    def draw(step: int, generator: torch.Generator) -> Tensor:
        return random_flip(images[torch.randint(PICTURES, (32,), generator=generator)], generator)

    def loss(model: nn.Module, batch: Tensor, generator: torch.Generator):
        pixels = batch.float() / 255
        result = model(pixels)
        return (result.images - pixels).square().mean() + result.codes.loss, {}

    return model, draw, loss


def audio_training(path: Path) -> tuple[nn.Module, Callable, Callable]:
    heard: Speech = speech(parquet.read(path, list(SCHEMA)))
    model = SSLEncoder(width=64, layers=2, feed_forward=256)

    def draw(step: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        return heard.padded(torch.randint(UTTERANCES, (16,), generator=generator))

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor], generator: torch.Generator):
        stacked, frames = model.stacked(*batch)
        return model(stacked, frames)[-1].square().mean(), {}

    return model, draw, loss


def text_training(path: Path, tokenizer: bpe.BytePairTokenizer) -> tuple[nn.Module, Callable, Callable]:
    texts = parquet.read(path, ["text"])["text"].to_list()
    windows = StreamWindows(encode_documents(texts, tokenizer, {END: VOCABULARY}), WINDOW)
    model = CausalLM(CausalLMConfig(VOCABULARY + 1, WINDOW, 64, 2, 4, tied=True))
    return (
        model,
        lambda step, generator: windows.draw(16, generator),
        lambda model, batch, generator: (model.loss(batch), {}),
    )


@pytest.mark.parametrize("kind", ["images", "audio", "text"])
def test_a_training_step_hardly_waits_for_its_batch(kind, one_thread, pictures, utterances, documents, benchmark):
    torch.manual_seed(0)
    if kind == "images":
        model, draw, loss = image_training(pictures)
    elif kind == "audio":
        model, draw, loss = audio_training(utterances)
    else:
        model, draw, loss = text_training(*documents)
    waited, taken = [], []

    def timed_draw(step: int, generator: torch.Generator):
        began = time.perf_counter()
        batch = draw(step, generator)
        waited[-1] += time.perf_counter() - began
        return batch

    def train() -> None:
        waited.append(0.0)
        began = time.perf_counter()
        fit(model, timed_draw, loss, Optimisation(STEPS, 1e-4), seed=0)
        taken.append(time.perf_counter() - began)

    benchmark.pedantic(train, rounds=3, warmup_rounds=1)
    shares = sorted(100 * wait / all_ for wait, all_ in zip(waited[1:], taken[1:], strict=True))
    benchmark.extra_info.update(
        ours=shares[1], ours_interval=[shares[0], shares[-1]], steps_per_second=STEPS / sorted(taken[1:])[1]
    )
    print(benchmark.extra_info)
    assert shares[1] <= MOST_WAITING_PERCENT
