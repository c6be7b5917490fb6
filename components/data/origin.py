"""Files at the publisher's own address."""

from __future__ import annotations

from pathlib import Path

from components.data.declaration import OriginSource
from components.data.download import download
from components.data.fetched import Fetched, checked_sha256


def obtain(source: OriginSource, workspace: Path) -> Fetched:
    """Download the files into `workspace`.

    Raises:
        SourceUnavailable: No address of a file could be reached, or a download broke off.
        WrongHash: A file is whole but not the declared one.
    """
    paths, record = {}, {}
    for name, file in source.files.items():
        paths[name] = workspace / name
        url = download(file.urls, paths[name])
        sha256 = checked_sha256(
            paths[name],
            file.sha256,
            f"{name} from {url}",
            "The publisher may have replaced it: compare with the publisher's page before changing params/data.yaml, "
            "or set TESSERA_MIRROR to a folder that holds the data set.",
        )
        record[name] = {"url": url, "sha256": sha256}
    return Fetched(paths, {"files": record})
