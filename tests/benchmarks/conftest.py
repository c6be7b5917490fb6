"""Keeps of `make bench` what a reader compares: the machine, the versions, and each row's figures, bar and spread."""

from __future__ import annotations

import importlib.metadata
import os
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))

from declared_rows import declared, published

from components.data.corpora import training_documents
from components.data.registry import load_declarations, materialise
from components.tokenizers.text.byte_level import to_symbols

ROOT = Path(__file__).parents[2]

PACKAGES = ("torch", "ray", "dvc", "prefect", "mlflow", "numpy", "polars", "tokenizers", "constriction")
PEERS = ("vector-quantize-pytorch", "datasets", "tiktoken")
"""Optional; their versions are kept where they are installed."""

_skipped: dict[str, str] = {}


@pytest.fixture
def one_thread():
    """Computes on one thread, as a stage does."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def book_symbols(tmp_path_factory) -> str:
    """The training text of `books` as symbols of bytes."""
    books = ROOT / "data" / "books"
    if not (books / "meta.json").is_file():
        books = tmp_path_factory.mktemp("data") / "books"
        declared_data = load_declarations(ROOT / "params" / "data.yaml")["books"]
        materialise("books", declared_data, books, mirror=os.environ.get("TESSERA_MIRROR"))
    return "".join(to_symbols(document) for document in training_documents(books))


def pytest_runtest_logreport(report):
    """Remember why a test was skipped: a row that is missing says so."""
    if report.skipped and isinstance(report.longrepr, tuple):
        _skipped[report.nodeid.rpartition("::")[2]] = report.longrepr[2].removeprefix("Skipped: ")


def pytest_benchmark_update_json(config, benchmarks, output_json):
    """Replace pytest-benchmark's record by the declared rows, without host names or single timings."""
    machine = output_json["machine_info"]
    measured = {row["name"]: (row["extra_info"], _timing(row["stats"])) for row in output_json["benchmarks"]}
    date = output_json["datetime"]
    output_json.clear()
    output_json.update(
        date=date,
        machine={
            "processor": machine["cpu"].get("brand_raw", ""),
            "cores": len(os.sched_getaffinity(0)),
            "system": f"{machine['system']} {machine['machine']}",
            "python": machine["python_version"],
        },
        versions=_versions(),
        **published(declared(), measured, _skipped),
    )


def pytest_terminal_summary(terminalreporter, config):
    """Name the declared rows whose test was skipped."""
    for test, reason in _skipped.items():
        terminalreporter.write_line(f"not measured: {test}: {reason}")


def _timing(stats) -> dict[str, float]:
    return {
        "median_seconds": stats["median"],
        "interquartile_range_seconds": stats["iqr"],
        "rounds": stats["rounds"],
    }


def _versions() -> dict[str, str]:
    found = {name: importlib.metadata.version(name) for name in PACKAGES}
    for name in PEERS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
