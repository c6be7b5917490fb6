"""DVC's own graph, read and committed through DVC's own objects.

Everything that decides whether a stage is stale, restores it from the run cache or records it in `dvc.lock` is
DVC's; this module only drives it stage by stage, writes each lock file atomically, and never reloads the graph.

It knows nothing of papers: any DVC repository can be executed with it.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import chdir, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.errors import TesseraError, did_you_mean
from components.training.atomic import write_bytes
from flows.engine.asked_once import TrackedFiles, hashed_once
from flows.engine.lock_text import lock_text, spelled
from flows.engine.nodes import Node, with_upstream

if TYPE_CHECKING:
    from dvc.repo import Repo
    from dvc.stage import PipelineStage


class GraphError(TesseraError):
    """The DVC graph cannot be used: it does not parse, has a cycle, or a target is not in it."""


class StageOutputMissing(TesseraError):
    """A stage ended without writing what it declares."""


class CommitFailed(TesseraError):
    """A finished stage could not be recorded."""


class DvcGraph:
    """The stages of one DVC repository.

    Args:
        root: Repository root.
        thawed: Frozen stages to treat as if they were not: they may run, and what is above them counts.
        remote: DVC remote whose cache and run cache count like those of this machine; None for these alone.

    Raises:
        GraphError: A file does not parse, two stages write the same path, or there is a cycle.
    """

    def __init__(self, root: Path, thawed: frozenset[str] = frozenset(), remote: str | None = None) -> None:
        from dvc.exceptions import DvcException
        from dvc.repo import Repo
        from dvc.scm import NoSCM

        logging.getLogger("dvc").setLevel(logging.ERROR)
        self.root = Path(root).resolve()
        self._remote = remote
        overrides: dict[str, Any] = {} if _in_git(self.root) else {"no_scm": True}
        if remote is not None:
            overrides["remote"] = remote
        try:
            self._repo: Repo = Repo(str(self.root), config={"core": overrides} if overrides else None)
            self._repo.stage_cache._load = self._load_run
            if not isinstance(scm := self._repo.scm, NoSCM):
                scm.is_tracked = TrackedFiles(scm.dulwich.repo, scm.root_dir).is_tracked
            graph = self._repo.index.graph
        except DvcException as error:
            raise GraphError(f"GraphError: DVC cannot read the stages under {self.root}: {_causes(error)}") from error
        self._stages: dict[str, PipelineStage] = {}
        self.nodes: dict[str, Node] = {}
        for stage in self._repo.index.stages:
            self._stages[self._address(stage)] = stage
        for address, stage in self._stages.items():
            frozen = stage.frozen and address not in thawed
            above = () if frozen else graph.successors(stage)
            self.nodes[address] = Node(
                address=address,
                command=stage.cmd if isinstance(stage.cmd, str) else "\n".join(stage.cmd or []),
                directory=Path(stage.wdir),
                upstream=tuple(sorted(self._address(other) for other in above)),
                outputs=tuple(Path(out.fs_path) for out in stage.outs),
                frozen=frozen,
                resources=stage.meta or {},
            )
        self._locks: dict[str, dict[str, str]] = {}

    def _address(self, stage: PipelineStage) -> str:
        path = os.path.relpath(stage.path, self.root)
        name = getattr(stage, "name", None)
        if name is None:
            return path
        return name if path == "dvc.yaml" else f"{path}:{name}"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold DVC's repository lock, so that no `dvc repro` runs at the same time, and stand in the root.

        DVC resolves some paths against the current directory, whatever root it was given.

        Raises:
            GraphError: Another DVC process holds it.
        """
        from dvc.lock import LockError

        try:
            self._repo.lock.lock()
        except LockError as error:
            raise GraphError(
                f"GraphError: a DVC command is running in {self.root}; wait until it has ended and run this again."
            ) from error
        try:
            with chdir(self.root):
                yield
        finally:
            self._repo.lock.unlock()

    def select(self, targets: Iterable[str]) -> list[str]:
        """Return the targets with everything above them, each after what it depends on.

        A target is a stage address, or a dvc.yaml path that stands for all its stages.

        Raises:
            GraphError: A target names no stage.
        """
        wanted: list[str] = []
        for target in targets:
            of_file = [address for address in self.nodes if address.startswith(f"{target}:")]
            if target in self.nodes:
                wanted.append(target)
            elif of_file:
                wanted.extend(of_file)
            else:
                raise GraphError(f"GraphError: no stage {target!r}.{did_you_mean(target, self.nodes)}")
        return with_upstream(self.nodes, wanted)

    def stale(self, address: str) -> bool:
        """Say whether DVC would run the stage now, `always_changed` aside; what is above it must be up to date."""
        stage = self._stages[address]
        if stage.changed_stage():
            return True
        if not stage.frozen and any(dependency.status() for dependency in stage.deps):
            return True
        return any(output.status() for output in stage.outs)

    def missing_inputs(self, address: str) -> list[str]:
        """Return the dependencies of the stage that do not exist."""
        return [str(dependency) for dependency in self._stages[address].deps if not dependency.exists]

    def restore(self, address: str) -> bool:
        """Check the stage's outputs out of DVC's run cache and record them, if the same run was made before."""
        from dvc.stage.cache import RunCacheNotFoundError

        stage = self._stages[address]
        if stage.frozen or any(not out.use_cache for out in stage.outs):
            return False
        with hashed_once(stage.deps):
            try:
                self._repo.stage_cache.restore(stage, pull=self._remote is not None)
            except RunCacheNotFoundError:
                return False
        self.commit(address)
        return True

    @property
    def config(self) -> Mapping[str, Any]:
        """DVC's configuration of the repository."""
        return self._repo.config

    @property
    def cache(self) -> Path:
        """The top folder of DVC's cache."""
        return Path(self._repo.cache.legacy.path)

    def fetch_runs(self) -> None:
        """Learn of the runs that the remote knows, so that `restore` finds what another machine has made."""
        from dvc.exceptions import DvcException

        try:
            known = self._repo.cloud.get_remote_odb(hash_name="md5-dos2unix")
            self._repo.stage_cache.transfer(known, self._repo.cache.legacy, force=False)
        except (DvcException, OSError) as error:
            raise GraphError(f"GraphError: DVC's remote {self._remote!r} cannot be read: {_causes(error)}") from error

    def runs_of(self, address: str) -> list[Path]:
        """Return the files of DVC's run cache that tell of a stage's committed run, below `cache`."""
        stage = self._stages[address]
        if any(not out.use_cache for out in stage.outs):
            return []
        folder = self._run_folder(stage)
        return [] if folder is None else sorted(path for path in folder.iterdir() if _is_whole_run(path))

    def _run_folder(self, stage: PipelineStage) -> Path | None:
        """Return the folder of the run cache for the stage as its inputs are recorded; None where there is none."""
        from dvc.stage.cache import _can_hash, _get_stage_hash

        if not _can_hash(stage) or not (key := _get_stage_hash(stage)):
            return None
        folder = Path(self._repo.stage_cache.cache_dir, key[:2], key)
        return folder if folder.is_dir() else None

    def _load_run(self, stage: PipelineStage) -> dict | None:
        """Load the newest run of a stage from the run cache, after removing what is none.

        DVC takes the newest file there, also one that a kill or a full disk kept it from finishing under a temporary
        name, and cannot read a folder without files.
        """
        folder = self._run_folder(stage)
        if folder is not None:
            entries = list(folder.iterdir())
            unfinished = [path for path in entries if not _is_whole_run(path)]
            for path in unfinished:
                path.unlink(missing_ok=True)
            if len(unfinished) == len(entries):
                folder.rmdir()
        return type(self._repo.stage_cache)._load(self._repo.stage_cache, stage)

    def commit(self, address: str) -> None:
        """Record a finished stage: hash its inputs and outputs, fill the caches, write its lock file.

        The lock file is written last, whole and atomically; its cost does not depend on the other stages or papers.

        Raises:
            StageOutputMissing: An output does not exist.
            CommitFailed: The cache or the lock file could not be written (disk full, read-only).
        """
        from dvc.dependency.base import DependencyDoesNotExistError
        from dvc.exceptions import DvcException
        from dvc.output import OutputDoesNotExistError

        stage = self._stages[address]
        cached = all(out.use_cache for out in stage.outs)
        try:
            with self._repo.scm_context(quiet=True), hashed_once(stage.deps):
                stage.save(run_cache=cached)
                for out in stage.outs:
                    out.commit(relink=False)
                    # DVC logs an object that the cache did not take, and goes on.
                    if out.use_cache and out.changed_cache():
                        raise OSError(f"DVC's cache did not take {out} (full or read-only)")
            self._write_lock(stage)
        except OutputDoesNotExistError as error:
            raise StageOutputMissing(
                f"StageOutputMissing: {address} ended without writing {_causes(error)}. A stage must write every "
                f"output it declares in dvc.yaml; its command is: {stage.cmd}"
            ) from error
        except DependencyDoesNotExistError as error:
            raise CommitFailed(f"CommitFailed: {address} reads something that is missing: {_causes(error)}") from error
        except (OSError, DvcException) as error:
            raise CommitFailed(
                f"CommitFailed: {address} ran, but could not be recorded: {_causes(error)}. Its outputs are kept; "
                "free disk space or mend the permissions of .dvc/ and run the same command again."
            ) from error

    def _write_lock(self, stage: PipelineStage) -> None:
        """Write the stage's lock file with its new entry; only that entry is spelled anew, since YAML is slow."""
        from dvc.stage.serialize import to_lockfile

        path = f"{os.path.splitext(stage.path)[0]}.lock"
        entries = self._locks.get(path)
        if entries is None:
            known = dict(stage.dvcfile.lockfile_contents).get("stages", {})
            entries = self._locks[path] = {name: spelled(name, entry) for name, entry in known.items()}
        entries |= {name: spelled(name, entry) for name, entry in to_lockfile(stage).items()}
        write_bytes(Path(path), lock_text(entries.values()).encode())

    def recorded_hashes(self, address: str) -> dict[str, str]:
        """Return the hash of each output of a committed stage by its path relative to the root."""
        return {
            os.path.relpath(out.fs_path, self.root): str(out.hash_info.value)
            for out in self._stages[address].outs
            if out.hash_info
        }

    def close(self) -> None:
        """Release DVC's databases."""
        self._repo.close()


def _in_git(root: Path) -> bool:
    return any((folder / ".git").exists() for folder in (root, *root.parents))


def _is_whole_run(path: Path) -> bool:
    """Tell whether a file of the run cache is what its name, a hash of its content, says."""
    from dvc.stage.cache import _get_cache_hash
    from dvc.utils.serialize import YAMLFileCorruptedError, load_yaml

    try:
        return _get_cache_hash(load_yaml(path)) == path.name
    except (YAMLFileCorruptedError, OSError, ValueError, TypeError, AttributeError):
        return False


def _causes(error: BaseException) -> str:
    """Join the messages of an error and its causes, since DVC hides the reason in the cause."""
    messages: list[str] = []
    current: BaseException | None = error
    while current is not None:
        text = str(current).strip()
        if text and text not in messages:
            messages.append(text)
        current = current.__cause__
    return ": ".join(messages)
