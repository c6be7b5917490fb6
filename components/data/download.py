"""One file from the network, through pooch: with timeouts, and whole or not at all."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from components.data.errors import SourceUnavailable
from components.data.network import CONNECT_SECONDS, READ_SECONDS, unreachable


def download(urls: Sequence[str], path: Path, headers: Mapping[str, str] | None = None) -> str:
    """Download a file to `path` from the first address that serves it, and return that address.

    A host is given CONNECT_SECONDS to answer and READ_SECONDS between two parts of the file.

    Raises:
        SourceUnavailable: No address could be reached, or the download broke off; nothing is left at `path`.
    """
    import pooch
    import requests

    pooch.get_logger().setLevel(logging.WARNING)
    path.parent.mkdir(parents=True, exist_ok=True)
    reasons = []
    for url in urls:
        if reason := unreachable(url):
            reasons.append(reason)
            continue
        timeout = (CONNECT_SECONDS, READ_SECONDS)
        fetch = pooch.HTTPDownloader(chunk_size=1 << 20, timeout=timeout, headers=dict(headers or {}))
        try:
            # The hash is compared by the caller, with one message whichever source a file came from.
            pooch.retrieve(url, known_hash=None, fname=path.name, path=path.parent, downloader=fetch)
            return url
        except requests.RequestException as error:
            reasons.append(f"download of {url} failed ({_cause(error)})")
    raise SourceUnavailable("; ".join(reasons))


def _cause(error: BaseException) -> str:
    # requests wraps the reason several times over; the innermost one is the one a person can read.
    while error.args and isinstance(error.args[-1], BaseException):
        error = error.args[-1]
    return str(error)
