"""CIFAR-10 from stand-ins of its publishers' files."""

from __future__ import annotations

import io
import random
import tarfile

import numpy as np
import polars as pl
import pytest
from PIL import Image

from components.data import cifar, parquet
from components.data.errors import ConversionFailed, WrongHash
from components.data.registry import materialise

COLUMNS = {"image": "binary", "label": "int8", "class": "string", "file": "string"}
PER_BATCH = 4


def archive(path, files: dict[str, bytes]):
    with tarfile.open(path, "w:gz") as out:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            out.addfile(member, io.BytesIO(content))
    return path


@pytest.fixture
def pixels():
    """Train and test pictures, uint8 (B, 32, 32, 3), with labels."""
    generator = np.random.default_rng(0)
    sizes = {"train": 5 * PER_BATCH, "test": PER_BATCH}
    return {
        split: (generator.integers(0, 256, (size, 32, 32, 3), dtype=np.uint8), generator.integers(0, 10, size))
        for split, size in sizes.items()
    }


@pytest.fixture
def binary(pixels, tmp_path):
    """The publisher's binary archive: a label byte, then the red, green and blue planes."""
    records = {}
    for split, (images, labels) in pixels.items():
        planes = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
        records[split] = np.concatenate([labels[:, None].astype(np.uint8), planes], axis=1)
    files = {"cifar-10-batches-bin/batches.meta.txt": b"airplane\n"}
    # Not in the order of the batches, as in real archives.
    for number in (4, 1, 5, 2, 3):
        batch = records["train"][(number - 1) * PER_BATCH : number * PER_BATCH]
        files[f"cifar-10-batches-bin/data_batch_{number}.bin"] = batch.tobytes()
    files["cifar-10-batches-bin/test_batch.bin"] = records["test"].tobytes()
    return archive(tmp_path / "cifar-10-binary.tar.gz", files)


@pytest.fixture
def hub_files(pixels, tmp_path):
    """The hub's Parquet files: PNG by another encoder, rows in another order."""
    paths = {}
    for split, (images, labels) in pixels.items():
        rows = []
        for row in random.Random(1).sample(range(len(images)), len(images)):
            buffer = io.BytesIO()
            Image.fromarray(images[row]).save(buffer, "PNG")
            rows.append({"img": {"bytes": buffer.getvalue(), "path": None}, "label": int(labels[row])})
        name = f"plain_text/{split}-00000-of-00001.parquet"
        paths[name] = tmp_path / f"hub-{split}.parquet"
        pl.DataFrame(rows, schema_overrides={"label": pl.Int64}).write_parquet(paths[name])
    return paths


def test_the_binary_archive_and_the_hub_give_the_same_bytes(binary, hub_files, tmp_path):
    for name in ("origin", "hub"):
        (tmp_path / name).mkdir()
    cifar.from_binary_archive({"cifar-10-binary.tar.gz": binary}, tmp_path / "origin")
    cifar.from_hub(hub_files, tmp_path / "hub")
    for split in ("train", "test"):
        file = f"{split}.parquet"
        assert (tmp_path / "origin" / file).read_bytes() == (tmp_path / "hub" / file).read_bytes()


def test_every_picture_of_the_binary_archive_is_there_with_its_label(binary, pixels, tmp_path):
    cifar.from_binary_archive({"cifar-10-binary.tar.gz": binary}, tmp_path)
    for split, (images, labels) in pixels.items():
        frame = parquet.read(tmp_path / f"{split}.parquet")
        decoded = [(np.asarray(Image.open(io.BytesIO(row[0]))).tobytes(), row[1]) for row in frame.rows()]
        assert sorted(decoded) == sorted(
            (image.tobytes(), int(label)) for image, label in zip(images, labels, strict=True)
        )
        assert frame["class"].to_list() == [cifar.CLASSES[label] for label in frame["label"]]
        assert frame["file"].n_unique() == len(images)


def test_the_jpeg_archive_is_sorted_and_shuffled_with_its_bytes_unchanged(tmp_path):
    files = {
        f"root/{split}/{name}/{number:04}.jpg": f"{split}{name}{number}".encode()
        for split in ("test", "train")
        for name in ("truck", "airplane")
        for number in range(3)
    }
    path = archive(tmp_path / "a.tar.gz", {"root/README.md": b"x", **files})
    cifar.from_jpeg_archive({"a.tar.gz": path}, tmp_path)
    frame = parquet.read(tmp_path / "train.parquet")
    expected = [(name, f"{number:04}.jpg") for name in ("airplane", "truck") for number in range(3)]
    random.Random(0).shuffle(expected)
    assert list(zip(frame["class"], frame["file"], strict=True)) == expected
    assert frame["image"].to_list() == [files[f"root/train/{name}/{file}"] for name, file in expected]
    assert set(zip(frame["class"], frame["label"], strict=True)) == {("airplane", 0), ("truck", 9)}


def origin(server, path, sha256):
    server.files["/c.tar.gz"] = path.read_bytes()
    files = {"cifar-10-binary.tar.gz": {"urls": [f"{server.url}/c.tar.gz"], "sha256": sha256}}
    return {"kind": "origin", "files": files, "convert": "components.data.cifar.from_binary_archive"}


def test_the_archive_is_fetched_checked_and_converted_from_its_address(server, declare, binary, tmp_path):
    import hashlib

    tables = {f"{split}.parquet": {"columns": COLUMNS} for split in ("train", "test")}
    editions = {"e": {"says": "original"}}
    digest = hashlib.sha256(binary.read_bytes()).hexdigest()
    declaration = declare(origin(server, binary, digest), tables=tables, editions=editions)
    provenance = materialise("cifar10", declaration, tmp_path / "out")
    assert {name: table["rows"] for name, table in provenance.tables.items()} == {
        "train.parquet": 20,
        "test.parquet": 4,
    }
    with pytest.raises(WrongHash):
        materialise(
            "cifar10", declare(origin(server, binary, "b" * 64), tables=tables, editions=editions), tmp_path / "out"
        )


@pytest.mark.parametrize("damage", [lambda content: content[:3000], lambda content: b"not an archive"])
def test_a_damaged_archive_is_refused(server, declare, binary, tmp_path, damage):
    binary.write_bytes(damage(binary.read_bytes()))
    tables = {f"{split}.parquet": {"columns": COLUMNS} for split in ("train", "test")}
    content = {name: "c" * 64 for name in tables}
    editions = {"e": {"says": "original", "content": content}}
    with pytest.raises(ConversionFailed, match="from_binary_archive could not read the files of source origin"):
        materialise(
            "cifar10", declare(origin(server, binary, None), tables=tables, editions=editions), tmp_path / "out"
        )
    assert list((tmp_path / "out").iterdir()) == []
