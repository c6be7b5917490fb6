"""Keeps of `make bench` what a reader compares: the machine, the versions, and each row's median and spread."""

from __future__ import annotations

import importlib.metadata
import os

PACKAGES = ("torch", "ray", "dvc", "prefect", "mlflow", "numpy", "polars")


def pytest_benchmark_update_json(config, benchmarks, output_json):
    """Replace pytest-benchmark's record by a short one without host names or single timings."""
    machine = output_json["machine_info"]
    rows = [
        {
            "name": row["name"],
            "median_seconds": row["stats"]["median"],
            "interquartile_range_seconds": row["stats"]["iqr"],
            "rounds": row["stats"]["rounds"],
            **row["extra_info"],
        }
        for row in output_json["benchmarks"]
    ]
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
        versions={name: importlib.metadata.version(name) for name in PACKAGES},
        rows=rows,
    )
