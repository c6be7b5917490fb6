import json
import os
import subprocess
import sys

import pytest

from flows.engine.spool import Spool, SpoolError, backlog, files_of, waits


def test_records_come_back_in_the_order_of_writing(tmp_path):
    spool = Spool(tmp_path, "run-1")
    for number in range(20):
        spool.write({"number": number})
    assert [json.loads(path.read_text())["number"] for path in spool.pending()] == list(range(20))


def test_a_living_owner_keeps_others_out(tmp_path):
    Spool(tmp_path, "run-1").write({})
    with pytest.raises(SpoolError, match="belongs to a running process"):
        Spool(tmp_path, "run-1")


def test_a_killed_owner_leaves_its_records_to_the_next_run(tmp_path):
    code = (
        "import os, sys; from pathlib import Path; from flows.engine.spool import Spool\n"
        "spool = Spool(Path(sys.argv[1]), 'run-1'); spool.write({'number': 1}); os.kill(os.getpid(), 9)"
    )
    killed = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert killed.returncode == -9
    adopted = Spool(tmp_path, "run-2").adopt()
    assert [spool.owner for spool in adopted] == ["run-1"]
    assert [json.loads(path.read_text()) for path in adopted[0].pending()] == [{"number": 1}]


def test_records_of_a_living_run_are_not_adopted(tmp_path):
    living = Spool(tmp_path, "run-1")
    living.write({})
    assert Spool(tmp_path, "run-2").adopt() == []


def test_an_emptied_spool_leaves_nothing_behind(tmp_path):
    spool = Spool(tmp_path, "run-1")
    spool.remove(spool.write({}))
    spool.release()
    assert list(tmp_path.iterdir()) == []


def test_a_spool_with_records_stays_when_it_is_released(tmp_path):
    spool = Spool(tmp_path, "run-1")
    spool.write({})
    spool.release()
    assert backlog(tmp_path).waiting == 1


def test_what_a_living_owner_will_send_and_what_was_rejected_does_not_wait_for_another_run(tmp_path):
    assert not waits(tmp_path / "nowhere")
    spool = Spool(tmp_path, "run-1")
    path = spool.write({})
    assert not waits(tmp_path)
    spool.release()
    assert waits(tmp_path)
    again = Spool(tmp_path, "run-1")
    again.reject(path, "no")
    again.release()
    assert not waits(tmp_path)


def test_files_are_copied_so_that_a_later_run_may_overwrite_them(tmp_path):
    figure = tmp_path / "curve.svg"
    figure.write_text("first")
    spool = Spool(tmp_path / "spool", "run-1")
    path = spool.write({}, [figure])
    figure.write_text("second")
    assert (files_of(path) / "curve.svg").read_text() == "first"
    spool.remove(path)
    assert not files_of(path).exists()


def test_a_rejected_record_is_kept_with_its_reason(tmp_path):
    spool = Spool(tmp_path, "run-1")
    aside = spool.reject(spool.write({"number": 1}), "no such thing")
    assert json.loads(aside.read_text()) == {"reason": "no such thing", "record": {"number": 1}}
    assert spool.pending() == []
    assert backlog(tmp_path).rejected == 1
    assert Spool(tmp_path, "run-2").adopt() == []


def test_a_damaged_record_can_be_rejected_too(tmp_path):
    spool = Spool(tmp_path, "run-1")
    path = spool.write({"number": 1})
    path.write_text('{"num')
    assert json.loads(spool.reject(path, "damaged").read_text())["record"] == {"unreadable": '{"num'}


def test_a_full_disk_is_an_error_that_leaves_no_half_record(tmp_path, monkeypatch):
    spool = Spool(tmp_path, "run-1")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(SpoolError, match="No space left"):
        spool.write({"number": 1})
    assert [path.name for path in spool.folder.iterdir()] == ["lock"]


@pytest.mark.parametrize("owner", ["../../etc", "..", "a/b", "."])
def test_no_owner_leaves_the_spool(tmp_path, owner):
    assert Spool(tmp_path / "spool", owner).folder.parent == tmp_path / "spool"
    assert list(tmp_path.iterdir()) == [tmp_path / "spool"]


def test_a_spool_that_was_never_made_has_no_backlog(tmp_path):
    assert backlog(tmp_path / "nothing").waiting == 0
