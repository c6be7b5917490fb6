"""The Hugging Face Hub: files of a data set at a fixed commit.

huggingface_hub gives the addresses and the user's credentials; the bytes come the same way as a publisher's, because
its own download retries a silent server for minutes.
"""

from __future__ import annotations

import os
from pathlib import Path

from components.data.declaration import HubSource
from components.data.download import download
from components.data.errors import SourceUnavailable
from components.data.fetched import Fetched, checked_sha256
from components.data.network import unreachable


def endpoint() -> str:
    """Return the address of the hub (`HF_ENDPOINT` names another one)."""
    return os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")


def obtain(source: HubSource, workspace: Path) -> Fetched:
    """Download the files into `workspace`.

    Raises:
        SourceUnavailable: The hub cannot be reached, does not serve a file, or a download broke off.
        WrongHash, TruncatedParquet: A file is not the declared one.
    """
    # Asked before the import, which takes most of a second.
    if reason := unreachable(endpoint()):
        raise SourceUnavailable(reason)
    from huggingface_hub import get_token, hf_hub_url

    token = get_token()
    headers = {"authorization": f"Bearer {token}"} if token else {}
    paths, record = {}, {}
    for file, expected in source.files.items():
        paths[file] = workspace / file
        address = hf_hub_url(source.dataset, file, repo_type="dataset", revision=source.revision, endpoint=endpoint())
        download([address], paths[file], headers)
        sha256 = checked_sha256(
            paths[file],
            expected,
            f"{file} of {source.dataset}@{source.revision[:12]}",
            "A commit's files never change: retry, or set TESSERA_MIRROR to a folder that holds the data set.",
        )
        record[file] = {"dataset": source.dataset, "revision": source.revision, "sha256": sha256}
    return Fetched(paths, {"files": record})
