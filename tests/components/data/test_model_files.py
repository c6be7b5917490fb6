import hashlib
import sys

import pytest

from components.data import model_files
from components.data.errors import DataError, SourceUnavailable, WrongHash


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Put an importable package with two model files on the path; return the hashes."""
    folder = tmp_path / "site" / "some_model" / "model"
    (folder / "part").mkdir(parents=True)
    (folder.parent / "__init__.py").write_text("raise RuntimeError('imported')")
    contents = {"a.json": b"{}", "part/b.bin": bytes(range(256))}
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    return {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}


def test_files_of_a_package_become_rows_without_importing_it(package, tmp_path):
    model_files.from_package(tmp_path, package="some_model", folder="model", files=package)
    assert model_files.read(tmp_path, ["part/b.bin", "a.json"]) == {"part/b.bin": bytes(range(256)), "a.json": b"{}"}
    assert "some_model" not in sys.modules


def test_a_file_with_another_hash_is_refused(package, tmp_path):
    with pytest.raises(WrongHash, match=r"a\.json of the package some_model has SHA-256 .*requirements-models\.txt"):
        model_files.from_package(tmp_path, package="some_model", folder="model", files=package | {"a.json": "0" * 64})


def test_a_package_or_file_that_is_not_there_makes_the_next_source_be_tried(package, tmp_path):
    with pytest.raises(SourceUnavailable, match="not importable: no_such_model"):
        model_files.from_package(tmp_path, package="no_such_model", folder="model", files=package)
    with pytest.raises(SourceUnavailable, match="lacks model/c"):
        model_files.from_package(tmp_path, package="some_model", folder="model", files={"c": "0" * 64})


def test_a_file_that_the_table_lacks_is_named(package, tmp_path):
    model_files.from_package(tmp_path, package="some_model", folder="model", files=package)
    with pytest.raises(DataError, match="lacks c"):
        model_files.read(tmp_path, ["a.json", "c"])
