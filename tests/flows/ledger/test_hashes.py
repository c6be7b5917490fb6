"""Hashes agree with DVC's own."""

from pathlib import Path

from flows.ledger.hashes import directory_md5, file_md5


def test_a_directory_hash_is_the_one_dvc_writes_into_its_lock(tmp_path: Path):
    from dvc_data.hashfile.build import build
    from dvc_data.hashfile.db import HashFileDB
    from dvc_objects.fs.local import LocalFileSystem

    run = tmp_path / "run"
    # Names whose order differs between path order and string order, and names that JSON escapes.
    for name in ["metrics.parquet", "a/b.txt", "a-b.txt", "a/é.txt", "figures/x.svg", "A.txt", "empty"]:
        path = run / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode() * 1000 if name != "empty" else b"")
    (run / "nothing").mkdir()

    files = LocalFileSystem()
    store = HashFileDB(files, str(tmp_path / "cache"))
    _, _, tree = build(store, str(run), files, "md5", dry_run=True)
    assert directory_md5(run) == tree.hash_info.value
    _, _, single = build(store, str(run / "A.txt"), files, "md5", dry_run=True)
    assert file_md5(run / "A.txt") == single.hash_info.value


def test_a_changed_byte_or_name_changes_the_hash(tmp_path: Path):
    (tmp_path / "a.txt").write_text("one")
    first = directory_md5(tmp_path)
    (tmp_path / "a.txt").write_text("two")
    second = directory_md5(tmp_path)
    (tmp_path / "a.txt").rename(tmp_path / "b.txt")
    assert len({first, second, directory_md5(tmp_path)}) == 3
