"""One file from the network, through pooch: with timeouts, and whole or not at all."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from components.data.errors import SourceUnavailable
from components.data.network import CONNECT_SECONDS, READ_SECONDS, unreachable

LARGEST = 64 * 2**30
"""Bytes; a server that sends more is stopped before it fills the disk."""


class TooLarge(SourceUnavailable):
    """A server sends more than any file of a data set has."""


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
        fetch = pooch.HTTPDownloader(
            progressbar=_Limit(url), chunk_size=1 << 20, timeout=timeout, headers=dict(headers or {})
        )
        try:
            # The hash is compared by the caller, with one message whichever source a file came from.
            pooch.retrieve(url, known_hash=None, fname=path.name, path=path.parent, downloader=fetch)
            return url
        except TooLarge as error:
            reasons.append(str(error))
        except requests.RequestException as error:
            reasons.append(f"download of {url} failed ({_cause(error)})")
    raise SourceUnavailable("; ".join(reasons))


class _Limit:
    """Counts what arrives, where pooch shows a progress bar."""

    total = 0

    def __init__(self, url: str) -> None:
        self._url = url
        self._arrived = 0

    def update(self, size: int) -> None:
        self._arrived += size
        if max(self._arrived, self.total) > LARGEST:
            raise TooLarge(f"{self._url} sends more than {LARGEST} bytes")

    def reset(self) -> None:
        # Pooch fills the bar up once more at the end.
        self._arrived = 0

    def close(self) -> None:
        """Nothing to close: nothing was shown."""


def _cause(error: BaseException) -> str:
    # requests wraps the reason several times over; the innermost one is the one a person can read.
    while error.args and isinstance(error.args[-1], BaseException):
        error = error.args[-1]
    return str(error)
