"""A mirror's folder of the data set itself, and of another one that it is made of."""

import hashlib

import pytest

from components.data import mirror
from components.data.declaration import MirrorSource
from components.data.errors import SourceUnavailable, WrongHash


def source(file: str, content: bytes) -> MirrorSource:
    return MirrorSource(kind="mirror", edition="e", files={file: hashlib.sha256(content).hexdigest()})


def test_files_of_another_data_set_are_named_by_its_folder_and_ones_own_come_first(tmp_path):
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_bytes(b"other")
    wanted = source("texts/a.txt", b"other")
    assert mirror.missing(wanted, "spoken", tmp_path) is None
    assert mirror.obtain(wanted, "spoken", tmp_path).paths == {"texts/a.txt": tmp_path / "texts" / "a.txt"}
    own = tmp_path / "spoken" / "texts" / "a.txt"
    own.parent.mkdir(parents=True)
    own.write_bytes(b"own")
    assert mirror.obtain(source("texts/a.txt", b"own"), "spoken", tmp_path).paths == {"texts/a.txt": own}
    with pytest.raises(WrongHash):
        mirror.obtain(wanted, "spoken", tmp_path)


def test_a_file_without_folder_is_the_data_sets_own(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"x")
    with pytest.raises(SourceUnavailable, match=r"lacks spoken/a\.txt"):
        mirror.obtain(source("a.txt", b"x"), "spoken", tmp_path)
    with pytest.raises(SourceUnavailable, match=r"lacks texts/a\.txt"):
        mirror.obtain(source("texts/a.txt", b"x"), "spoken", tmp_path)
