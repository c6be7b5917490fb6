"""Which sources could serve each data set right now, without fetching anything."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from components.data import calls, hub
from components.data import mirror as local_mirror
from components.data.declaration import DataSet, HubSource, MirrorSource, OriginSource, PackageSource, Source
from components.data.network import unreachable


@dataclass(frozen=True)
class SourceState:
    """One source of one data set.

    Attributes:
        name: Name of the data set.
        source: Kind of the source.
        edition: Edition it serves.
        embedded: The data set needs neither mirror nor network.
        ready: The source could serve the data set now, as far as can be told without reading it.
        detail: Why not, or where from.
    """

    name: str
    source: str
    edition: str
    embedded: bool
    ready: bool
    detail: str


def availability(
    declarations: Mapping[str, DataSet], mirror: Path | str | None, *, seconds: float = 2.0
) -> list[SourceState]:  # fmt: skip
    """Return the state of every source, in the order of the declarations and of their sources.

    Files of a mirror are looked for but not hashed; hosts are asked for a connection (all at once, at most about
    `seconds`) but for no file.
    """
    mirror = Path(mirror) if mirror else None
    sources = [source for declaration in declarations.values() for source in declaration.sources]
    hosts = sorted({host for source in sources for file in _hosts(source) for host in file})
    with ThreadPoolExecutor(max_workers=max(1, len(hosts))) as pool:
        silent = dict(zip(hosts, pool.map(lambda host: unreachable(host, seconds), hosts), strict=True))
    return [
        SourceState(name, source.kind, source.edition, declaration.embedded, *_state(name, source, mirror, silent))
        for name, declaration in declarations.items()
        for source in declaration.sources
    ]


def _state(name: str, source: Source, mirror: Path | None, silent: dict[str, str | None]) -> tuple[bool, str]:
    if isinstance(source, MirrorSource):
        reason = local_mirror.missing(source, name, mirror)
        return reason is None, reason or str(mirror / name)
    if isinstance(source, PackageSource):
        reason = calls.missing_packages(source)
        return reason is None, reason or ", ".join(source.packages)
    if isinstance(source, OriginSource | HubSource):
        for file in _hosts(source):
            if all(silent[host] for host in file):
                return False, "; ".join(silent[host] for host in file)
        return True, source.dataset if isinstance(source, HubSource) else ", ".join(_hosts(source)[0])
    return True, source.function


def _hosts(source: Source) -> list[list[str]]:
    """Return, for each file that a source downloads, the hosts that have it, as `scheme://host`."""
    if isinstance(source, HubSource):
        return [[hub.endpoint()]]
    if isinstance(source, OriginSource):
        return [
            list(dict.fromkeys("/".join(url.split("/")[:3]) for url in file.urls)) for file in source.files.values()
        ]
    return []
