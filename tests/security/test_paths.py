"""Nothing that is declared, fetched or unpacked leaves its folder: `..`, absolute paths, links, hostile archives."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from mutations import snapshot
from pydantic import ValidationError
from tracked import ROOT
from workspace import edit, make_workspace

from components.data import calls, cifar, emoji, fsdd, multi30k, parquet
from components.data.declaration import DataSet
from components.data.errors import DeclarationError, WrongHash
from components.data.fetched import file_sha256
from components.data.registry import load_declarations, materialise
from components.training.atomic import replace_directory
from flows.declarations.problems import DeclarationError as Faults
from flows.declarations.workspace import Workspace
from flows.stage import find_stage, run_request

ESCAPES = [
    "../x",
    "../../etc/passwd",
    "/etc/passwd",
    "a/../../x",
    "a//b",
    "a/",
    "..",
    ".",
    "~/x",
    "a\\..\\x",
    "a\0b",
    "a\nb",
    "./x",
    "a/./b",
    " a",
    "$HOME",
    "C:\\x",
]


def declared(file: str, table: str = "t.parquet") -> dict:
    return {
        "title": "t",
        "licence": "t",
        "attribution": "t",
        "tables": {table: {"columns": {"x": "int64"}}},
        "editions": {"one": {"says": "t"}},
        "sources": [{"kind": "mirror", "edition": "one", "files": {file: "0" * 64}}],
    }


@pytest.mark.parametrize("path", ESCAPES)
def test_no_file_and_no_table_of_a_data_set_has_a_name_that_leaves_its_folder(path):
    DataSet.model_validate(declared("a/t.parquet"))
    with pytest.raises(ValidationError):
        DataSet.model_validate(declared(path))
    with pytest.raises(ValidationError):
        DataSet.model_validate(declared("t.parquet", table=f"{path}.parquet"))


@pytest.mark.parametrize("path", ESCAPES)
@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("slug: toy-0", "slug: {}"),
        ("  plain: {{canon", "  {}: {{canon"),
        ("  mean: {{", "  {}: {{"),
        ("study: toy", "study: {}"),
    ],
    ids=["slug", "variant", "arm", "study"],
)
def test_no_name_in_a_paper_leaves_its_folder(old, new, path, tmp_path):
    root = make_workspace(tmp_path, papers=1, bases=0)
    edit(root, "params/toy-0/paper.yaml", old.format(), new.format(json.dumps(path)))
    with pytest.raises(Faults):
        Workspace.load(root).paper("toy-0")


@pytest.mark.parametrize(
    "arguments",
    [
        ["data", "../x"],
        ["base", "../x"],
        ["train", "../toy-0", "plain", "mean", "0"],
        ["train", "toy-0", "../x", "mean", "0"],
        ["train", "toy-0", "plain", "../x", "0"],
        ["train", "toy-0", "plain", "mean", "../0"],
        ["judge", "toy-0", "/etc"],
    ],
)
def test_no_command_line_of_a_stage_leaves_the_workspace(arguments, tmp_path):
    root = make_workspace(tmp_path / "outer" / "w", papers=1)
    answer = run_request({"root": str(root), "arguments": arguments})
    assert answer["status"] == "failed"
    assert "is not" in answer["message"] or "is no" in answer["message"]
    assert sorted(path.name for path in (tmp_path / "outer").iterdir()) == ["w"]


def test_a_link_in_place_of_an_output_is_replaced_and_never_followed(tmp_path):
    outside, target, made = tmp_path / "outside", tmp_path / "w" / "run", tmp_path / "w" / ".run.writing"
    for folder in (outside, made):
        folder.mkdir(parents=True)
    (outside / "kept").write_text("kept")
    (made / "new").write_text("new")
    target.symlink_to(outside)
    replace_directory(made, target)
    assert not target.is_symlink()
    assert (target / "new").read_text() == "new"
    assert snapshot(outside) == {"kept": 4}


def test_a_stage_of_a_linked_data_folder_writes_a_folder_and_not_behind_the_link(tmp_path):
    root, outside = make_workspace(tmp_path / "w", papers=1, bases=0), tmp_path / "outside"
    spec = find_stage(root, ["train", "toy-0", "plain", "mean", "0"], "small")
    outside.mkdir()
    (root / spec.output).parent.mkdir(parents=True)
    (root / spec.output).symlink_to(outside)
    assert run_request({"root": str(root), "arguments": list(spec.arguments)})["status"] == "done"
    assert not (root / spec.output).is_symlink()
    assert snapshot(outside) == {}


def test_a_link_in_a_mirror_is_read_only_where_it_holds_the_declared_content(tmp_path):
    (tmp_path / "mirror" / "set").mkdir(parents=True)
    parquet.write(pl.DataFrame({"x": [1]}), tmp_path / "good.parquet")
    parquet.write(pl.DataFrame({"x": [2]}), tmp_path / "other.parquet")
    link = tmp_path / "mirror" / "set" / "t.parquet"
    facts = declared("t.parquet")
    facts["sources"][0]["files"]["t.parquet"] = file_sha256(tmp_path / "good.parquet")
    data_set = DataSet.model_validate(facts)
    link.symlink_to(tmp_path / "other.parquet")
    with pytest.raises(WrongHash):
        materialise("set", data_set, tmp_path / "out", mirror=tmp_path / "mirror")
    link.unlink()
    link.symlink_to(tmp_path / "good.parquet")
    materialise("set", data_set, tmp_path / "out", mirror=tmp_path / "mirror")
    assert not (tmp_path / "out" / "t.parquet").is_symlink()


HOSTILE = [
    "../../outside",
    "/outside",
    "r/../../../outside",
    "r/train/cat/../../../../outside.jpg",
    "C:\\outside",
    "~/outside",
]
LOADERS: dict[str, tuple[Callable, str]] = {
    "CIFAR-10 as JPEG": (cifar.from_jpeg_archive, "r/train/cat/{}.jpg"),
    "CIFAR-10 as published": (cifar.from_binary_archive, "cifar-10-batches-bin/data_batch_{}.bin"),
    "FSDD": (fsdd.from_archive, "r/recordings/{}_me_7.wav"),
    "Noto Emoji": (emoji.convert, "r/png/32/emoji_u1f60{}.png"),
}


def hostile_archive(path: Path, wanted: str, secret: Path) -> None:
    """An archive whose members climb out, stand at the root, or are links and devices under the names that are read."""
    with tarfile.open(path, "w:gz") as archive:
        for name in HOSTILE:
            member = tarfile.TarInfo(name)
            member.size = 4
            archive.addfile(member, io.BytesIO(b"evil"))
        for number, kind in enumerate(
            [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE]
        ):
            member = tarfile.TarInfo(wanted.format(number))
            member.type, member.linkname = kind, str(secret)
            archive.addfile(member)


@pytest.mark.parametrize("loader", LOADERS)
def test_a_hostile_archive_writes_nothing_and_shows_nothing_of_the_machine(loader, tmp_path):
    convert, wanted = LOADERS[loader]
    folder, out = tmp_path / "a" / "b", tmp_path / "a" / "b" / "c" / "out"
    out.mkdir(parents=True)
    (folder / "secret").write_text("the content of a file of this machine")
    archive = folder / "archive.tar.gz"
    hostile_archive(archive, wanted, folder / "secret")
    paths = {"noto-emoji.tar.gz": archive} if convert is emoji.convert else {"archive.tar.gz": archive}
    if convert is emoji.convert:
        paths["data-by-emoji.json"] = folder / "list.json"
        paths["data-by-emoji.json"].write_text("{}")
    before = snapshot(tmp_path)
    # What these are is put into words by the registry.
    with contextlib.suppress(ValueError, KeyError, tarfile.TarError):
        convert(paths, out)
    written = {path for path in snapshot(tmp_path) if path not in before}
    assert all(path.startswith("a/b/c/out/") for path in written)
    assert not any(b"content of a file" in (tmp_path / path).read_bytes() for path in written)


def test_a_name_of_a_compressed_text_is_only_looked_at(tmp_path):
    path = tmp_path / "x.gz"
    path.write_bytes(gzip.compress(b"evil"))
    with pytest.raises(ValueError, match="is none of <split>"):
        multi30k.from_parallel_texts({"../../train.de.gz/../outside": path}, tmp_path)
    assert sorted(snapshot(tmp_path)) == ["x.gz"]


@pytest.mark.parametrize(
    "function",
    [
        "components.data.registry.shutil",
        "components.data.calls.version",
        "components.data.registry.write_parquet",
        "components.data.registry._publish",
        "components.data.png.encode.__call__",
        "components.data.parquet.Path",
        "components.data.network.socket",
        "os.system",
        "components.training.loop.fit",
        "components.data..os.system",
    ],
)
def test_a_parameter_file_names_only_functions_that_a_module_of_data_defines(function, tmp_path):
    facts = declared("t.parquet")
    facts["sources"] = [{"kind": "generator", "edition": "one", "function": function}]
    facts |= {"embedded": True, "editions": {"one": {"says": "t", "content": {"t.parquet": "0" * 64}}}}
    with pytest.raises((ValidationError, DeclarationError)):
        materialise("set", DataSet.model_validate(facts), tmp_path / "out")


def test_every_function_that_is_declared_is_one_of_them():
    data_sets = load_declarations(ROOT / "params" / "data.yaml")
    assert [calls.resolve(function) for data_set in data_sets.values() for function in data_set.functions()]


def test_tables_of_a_mirror_keep_only_the_last_part_of_their_name(tmp_path):
    (tmp_path / "mirror" / "other").mkdir(parents=True)
    parquet.write(pl.DataFrame({"x": [1]}), tmp_path / "mirror" / "other" / "t.parquet")
    facts = declared("other/t.parquet")
    facts["sources"][0]["files"]["other/t.parquet"] = file_sha256(tmp_path / "mirror" / "other" / "t.parquet")
    materialise("set", DataSet.model_validate(facts), tmp_path / "out", mirror=tmp_path / "mirror")
    assert sorted(snapshot(tmp_path / "out")) == ["meta.json", "t.parquet"]
