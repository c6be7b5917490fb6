"""The Hugging Face Hub: files of a data set at a fixed commit, through huggingface_hub."""

from __future__ import annotations

import os
from pathlib import Path

from components.data.declaration import HubSource
from components.data.errors import SourceUnavailable
from components.data.fetched import Fetched, checked_sha256
from components.data.network import CONNECT_SECONDS, unreachable


def endpoint() -> str:
    """Return the address of the hub (`HF_ENDPOINT` names another one)."""
    return os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")


def obtain(source: HubSource, workspace: Path) -> Fetched:
    """Download the files into `workspace`.

    Raises:
        SourceUnavailable: The hub cannot be reached, or does not serve a file.
        WrongHash, TruncatedParquet: A file is not the declared one.
    """
    if reason := unreachable(endpoint()):
        raise SourceUnavailable(reason)
    # Imported after the check: the client takes most of a second to load.
    import httpx
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    paths, record = {}, {}
    for file, expected in source.files.items():
        where = f"{file} of {source.dataset}@{source.revision[:12]}"
        try:
            paths[file] = Path(
                hf_hub_download(
                    source.dataset,
                    file,
                    repo_type="dataset",
                    revision=source.revision,
                    local_dir=workspace,
                    etag_timeout=CONNECT_SECONDS,
                    endpoint=endpoint(),
                )
            )
        except (OSError, EntryNotFoundError, httpx.HTTPError) as error:
            raise SourceUnavailable(f"download of {where} failed ({error})") from error
        sha256 = checked_sha256(
            paths[file],
            expected,
            where,
            "A commit's files never change: retry, or set TESSERA_MIRROR to a folder that holds the data set.",
        )
        record[file] = {"dataset": source.dataset, "revision": source.revision, "sha256": sha256}
    return Fetched(paths, {"files": record})
