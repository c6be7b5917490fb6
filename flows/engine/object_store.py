"""Directories in a DVC remote: what machines without a common file system hand each other.

A directory is put under the hash that `dvc.lock` records for it, in DVC's own layout, so that `dvc pull` finds what a
worker has put, and a worker what `dvc push` has put:

    driver ── inputs ──> remote ── inputs ──> worker ── output ──> remote ── output ──> driver ──> dvc.lock

Credentials are no part of what is sent to a worker: each machine has its own, in its environment or its role.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import shutil
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from components.errors import TesseraError, did_you_mean
from components.training.atomic import replace_directory

OBJECT = re.compile(r"[0-9a-f]{32}(\.dir)?")
PLAIN_SETTINGS = frozenset(
    {
        "url", "endpointurl", "region", "profile", "use_ssl", "ssl_verify", "read_timeout", "connect_timeout",
        "projectname", "account_name", "container_name", "verify", "jobs", "session_region",
    }
)  # fmt: skip
"""Settings of a remote that hold no secret; the others are left to the worker's own environment."""


class RemoteUnusable(TesseraError):
    """The DVC remote is not declared, cannot be reached, or does not hold what it should."""


def remote_settings(config: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return what another machine needs in order to find a remote of a DVC repository, without secrets.

    Args:
        config: The repository's DVC configuration.
        name: Name of the remote.

    Raises:
        RemoteUnusable: There is no such remote.
    """
    from dvc.exceptions import DvcException
    from dvc.fs import get_fs_config

    try:
        found = dict(get_fs_config(config, name=name))
    except DvcException as error:
        known = list(config.get("remote", {}))
        raise RemoteUnusable(
            f"RemoteUnusable: DVC has no remote {name!r}.{did_you_mean(name, known)} Declare it with `dvc remote add "
            f"{name} s3://bucket/folder`, or with the path of a folder that every node sees."
        ) from error
    return {key: value for key, value in found.items() if key in PLAIN_SETTINGS}


class ObjectStore:
    """Puts directories into a DVC remote and gets them out.

    Args:
        settings: The remote's settings (see `remote_settings`), or DVC's own with credentials.
        cache: Folder in which what was fetched is kept, shared by all processes of one machine.
        linked: Whether what is got shares its bytes with the cache and has one age everywhere: for stages, which only
            read it.

    Raises:
        RemoteUnusable: The package for this kind of remote is missing, or a setting is wrong.
    """

    def __init__(self, settings: Mapping[str, Any], cache: Path, *, linked: bool = False) -> None:
        from dvc.exceptions import DvcException
        from dvc.fs import RemoteMissingDepsError, get_cloud_fs, localfs
        from dvc_data.hashfile.db import get_odb

        # S3 clients tell of every retry on their own.
        logging.getLogger("botocore").setLevel(logging.ERROR)
        logging.getLogger("dvc_data").setLevel(logging.CRITICAL)
        logging.getLogger("dvc_objects").setLevel(logging.CRITICAL)
        self.url = str(settings["url"])
        try:
            kind, config, self._path = get_cloud_fs(None, **settings)
            self._fs = kind(**config)
            self._remote = get_odb(self._fs, self._fs.join(self._path, "files", "md5"), hash_name="md5")
        except (DvcException, RemoteMissingDepsError, ValueError) as error:
            raise RemoteUnusable(
                f"RemoteUnusable: {self.url}: {error}. For S3 install the extra: `pip install 'tessera[s3]'`."
            ) from error
        self._cache = get_odb(localfs, str(Path(cache) / "files" / "md5"), hash_name="md5")
        self._linked = linked
        if linked:
            self._cache.cache_types = ["reflink", "hardlink", "copy"]
        self._localfs = localfs

    def put(self, path: Path) -> str:
        """Put a file or directory into the remote, where it is not there yet; return its hash as in `dvc.lock`.

        Raises:
            RemoteUnusable: The remote did not take it.
        """
        from dvc_data.hashfile.build import build
        from dvc_data.hashfile.transfer import transfer

        with self._explained("put", str(path)):
            staging, _, found = build(self._cache, str(path), self._localfs, "md5")
            moved = transfer(staging, self._remote, {found.hash_info}, shallow=False)
            if moved.failed:
                raise OSError(f"{len(moved.failed)} objects were not taken")
        return str(found.hash_info.value)

    def get(self, name: str, path: Path) -> None:
        """Make `path` the file or directory of a hash, whole or not at all; what was there is replaced.

        Raises:
            RemoteUnusable: The remote does not hold it, or it cannot be read.
        """
        from dvc_data.hashfile import load
        from dvc_data.hashfile.checkout import checkout
        from dvc_data.hashfile.hash_info import HashInfo
        from dvc_data.hashfile.transfer import transfer

        if not OBJECT.fullmatch(name):
            raise RemoteUnusable(f"RemoteUnusable: {name!r} is no hash of DVC; expected 32 hexadecimal digits.")
        wanted = HashInfo("md5", name)
        partial = path.parent / f".{path.name}.{uuid.uuid4().hex[:8]}.fetching"
        path.parent.mkdir(parents=True, exist_ok=True)
        with self._explained("get", f"{name} ({path.name})"):
            moved = transfer(self._remote, self._cache, {wanted}, shallow=False, verify=True)
            if moved.failed:
                raise OSError(f"{len(moved.failed)} objects are missing or damaged there")
            try:
                checkout(str(partial), self._localfs, load(self._cache, wanted), self._cache, force=True, quiet=True)
                if self._linked:
                    _same_age(partial)
                replace_directory(partial, path)
            finally:
                shutil.rmtree(partial, ignore_errors=True)

    def write(self, name: str, source: Path) -> None:
        """Put one file under a name of its own below the remote's top, replacing what was there at once."""
        target = self._fs.join(self._path, name)
        with self._explained("write", name):
            self._fs.makedirs(self._fs.parent(target), exist_ok=True)
            if self._fs.protocol == "local":
                partial = f"{target}.{uuid.uuid4().hex[:8]}"
                shutil.copyfile(source, partial)
                os.replace(partial, target)
            else:
                self._fs.put_file(str(source), target)

    def read(self, name: str, folder: Path) -> bool:
        """Copy every file that was written below a name into `folder`; tell whether there was any."""
        source = self._fs.join(self._path, name)
        with self._explained("read", name):
            if not self._fs.exists(source):
                return False
            files = list(self._fs.find(source))
            for file in files:
                target = folder / Path(*self._fs.relparts(file, source))
                if not target.resolve().is_relative_to(folder.resolve()):
                    raise OSError(f"{file} lies outside {name}")
                target.parent.mkdir(parents=True, exist_ok=True)
                partial = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.partial")
                self._fs.get_file(file, str(partial))
                os.replace(partial, target)
        return bool(files)

    def remove(self, name: str) -> None:
        """Remove what was written below a name."""
        target = self._fs.join(self._path, name)
        with self._explained("remove", name):
            if self._fs.exists(target):
                self._fs.remove(target, recursive=True) if self._fs.protocol != "local" else shutil.rmtree(target)

    @contextlib.contextmanager
    def _explained(self, verb: str, what: str) -> Iterator[None]:
        try:
            yield
        except TesseraError:
            raise
        except Exception as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise RemoteUnusable(
                f"RemoteUnusable: cannot {verb} {what} at {self.url}: {reason}. Check that this machine reaches the "
                "remote and has its credentials (for S3: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a role)."
            ) from error


def _same_age(path: Path) -> None:
    # A checkpoint belongs to inputs of one age and size; it must be good on another node too.
    for file in path.rglob("*") if path.is_dir() else [path]:
        if file.is_file():
            os.utime(file, ns=(0, 0))
