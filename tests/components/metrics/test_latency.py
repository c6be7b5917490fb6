import mmap

import pytest

from components.errors import TesseraError
from components.metrics.latency import latency


def test_the_first_quarter_of_the_runs_is_thrown_away():
    calls = []
    found = latency(lambda: calls.append(None), runs=12)
    assert found.runs == 9
    assert 0 <= found.lower <= found.median <= found.upper
    assert len(calls) in (12, 13)  # one more where memory can be measured


def test_memory_is_seen_where_it_can_be():
    # Pages straight from the system: a tensor may come from what the process has freed and kept.
    def work():
        with mmap.mmap(-1, 96 << 20) as pages:
            pages.write(bytes(len(pages)))

    found = latency(work, 3)
    assert found.peak_bytes is None or found.peak_bytes > 64 << 20


def test_one_run_is_no_measurement():
    with pytest.raises(TesseraError, match="expected at least 2"):
        latency(lambda: None, 1)
