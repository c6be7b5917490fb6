"""The publisher's own address: downloads through pooch, with timeouts and hashes."""

from __future__ import annotations

import logging
from pathlib import Path

from components.data.declaration import OriginSource, RemoteFile
from components.data.errors import SourceUnavailable
from components.data.fetched import Fetched, checked_sha256
from components.data.network import CONNECT_SECONDS, READ_SECONDS, unreachable


def obtain(source: OriginSource, workspace: Path) -> Fetched:
    """Download the files into `workspace`.

    Raises:
        SourceUnavailable: No address of a file could be reached, or the download broke off.
        WrongHash: A file is whole but not the declared one.
    """
    paths, record = {}, {}
    for name, file in source.files.items():
        paths[name], url = _download(file, workspace / name)
        sha256 = checked_sha256(
            paths[name],
            file.sha256,
            f"{name} from {url}",
            "The publisher may have replaced it: compare with the publisher's page before changing params/data.yaml, "
            "or set TESSERA_MIRROR to a folder that holds the data set.",
        )
        record[name] = {"url": url, "sha256": sha256}
    return Fetched(paths, {"files": record})


def _download(file: RemoteFile, path: Path) -> tuple[Path, str]:
    import pooch
    import requests

    pooch.get_logger().setLevel(logging.WARNING)
    path.parent.mkdir(parents=True, exist_ok=True)
    reasons = []
    for url in file.urls:
        if reason := unreachable(url):
            reasons.append(reason)
            continue
        fetch = pooch.HTTPDownloader(timeout=(CONNECT_SECONDS, READ_SECONDS), chunk_size=1 << 20)
        try:
            # The hash is checked by the caller, for the same message whichever source a file came from.
            pooch.retrieve(url, known_hash=None, fname=path.name, path=path.parent, downloader=fetch)
            return path, url
        except requests.RequestException as error:
            reasons.append(f"download of {url} failed ({_cause(error)})")
    raise SourceUnavailable("; ".join(reasons))


def _cause(error: Exception) -> str:
    # requests wraps the reason several times over; the innermost one is the one a person can read.
    while error.args and isinstance(error.args[-1], Exception):
        error = error.args[-1]
    return str(error)
