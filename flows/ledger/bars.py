"""Whether a bar is older than the first result it judged, from git.

The first entry of a claim in `history.jsonl` names the commit that was run. What `paper.yaml` said at that commit is
what the paper was asked before anybody knew the answer; where the claim's tests are others today, a bar was changed,
added or removed after a result was seen. That is allowed when `history` in the paper's file says so, with the claim's
name, on or after the day of the change, and only then.
"""

from __future__ import annotations

import datetime
import functools
import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.errors import TesseraError
from flows.declarations.document import parse_document
from flows.declarations.problems import DeclarationError
from flows.ledger import history

_WORDS = frozenset({"note", "says"})  # keys of a test that judge nothing


class NoGitHistory(TesseraError):
    """The checkout has no git history, or not enough of it, so nothing can be said about dates."""


@dataclass(frozen=True)
class ClaimBars:
    """The bars of one claim over time.

    Attributes:
        slug: The paper.
        claim: The claim.
        first_result: Day of its first judged result.
        first_commit: Commit that was run for it.
        changed: Day on which its tests became others than at that commit; None where they are the same.
        changed_commit: Commit of that change, "" where it is not committed yet.
        declared: Whether `history` in the paper's file says so.
    """

    slug: str
    claim: str
    first_result: str
    first_commit: str
    changed: str | None = None
    changed_commit: str = ""
    declared: bool = False

    @property
    def late(self) -> bool:
        """Whether a bar follows the first result that it judged and nothing says why."""
        return self.changed is not None and not self.declared

    def __str__(self) -> str:
        where = f"params/{self.slug}/paper.yaml: claim {self.claim!r}"
        if self.changed is None:
            return f"{where}: its tests are those of {self.first_commit[:12]}, before its first result."
        return (
            f"{where}: its tests changed on {self.changed} ({self.changed_commit[:12] or 'not committed'}), after its "
            f"first result of {self.first_result} at {self.first_commit[:12]}; say under `history` what changed in "
            f"{self.claim!r} and why, or restore the tests."
        )


def claim_bars(root: Path, slugs: Sequence[str]) -> dict[str, list[ClaimBars]]:
    """Return what git knows about the bars of every claim that was ever judged.

    Args:
        root: Top folder of a git checkout.
        slugs: The papers.

    Returns:
        The claims of each paper, in the order in which they were first judged.

    Raises:
        NoGitHistory: `root` is no top folder of a checkout, or a commit that was run is not in it.
        HistoryError: A history holds a line that is no entry.
    """
    git = _Git(root)
    first = {slug: _first_results(root, slug) for slug in slugs}
    git.load({(entry["git_commit"].partition("+")[0], _path(slug)) for slug in slugs for entry in first[slug].values()})
    return {slug: _of_paper(git, root, slug, first[slug]) for slug in slugs}


def _path(slug: str) -> str:
    return f"params/{slug}/paper.yaml"


def _first_results(root: Path, slug: str) -> dict[str, dict[str, Any]]:
    """The first entry of the history in which each claim stands."""
    first: dict[str, dict[str, Any]] = {}
    for entry in history.read(root / "results" / slug):
        for claim in entry["claims"]:
            first.setdefault(claim["id"], entry)
    return first


def _of_paper(git: _Git, root: Path, slug: str, first: Mapping[str, Mapping[str, Any]]) -> list[ClaimBars]:
    path = _path(slug)
    text = (root / path).read_bytes() if (root / path).is_file() else b""
    today = datetime.date.today().isoformat()
    found = []
    for claim, entry in first.items():
        commit = entry["git_commit"].partition("+")[0]
        then = git.file(commit, path)
        if _block(then) == _block(text) or _tests(then).get(claim) == _tests(text).get(claim):
            found.append(ClaimBars(slug, claim, entry["date"], commit))
            continue
        changed, changed_commit = _change(git, path, commit, claim, _tests(then).get(claim)) or (today, "")
        known = any(claim in words and date >= min(changed, today) for date, words in _declared(text))
        found.append(ClaimBars(slug, claim, entry["date"], commit, changed, changed_commit, known))
    return found


def _change(git: _Git, path: str, since: str, claim: str, asked: Any) -> tuple[str, str] | None:
    """Day and commit of the first commit behind `since` in which a claim's tests are others."""
    for commit, day in git.commits(since, path):
        if _tests(git.file(commit, path)).get(claim) != asked:
            return day, commit
    return None


def _block(text: bytes) -> bytes:
    """The claims as they are written: where they are equal, nothing has to be parsed."""
    found = re.search(rb"^claims:.*?(?=^[^\s#-]|\Z)", text, re.DOTALL | re.MULTILINE)
    return found[0] if found else text


@functools.lru_cache(maxsize=64)
def _tests(text: bytes) -> dict[str, Any]:
    """What decides about each claim, by id: tests, gates, join and scope, without words."""
    claims = _data(text).get("claims")
    return {
        claim["id"]: {key: _plain(claim.get(key)) for key in ("scope", "variant", "join", "gates", "tests")}
        for claim in (claims if isinstance(claims, list) else [])
        if isinstance(claim, dict) and "id" in claim
    }


def _declared(text: bytes) -> list[tuple[str, str]]:
    """Day and words of each entry under `history`."""
    entries = _data(text).get("history")
    return [(str(entry.get("date")), f"{entry.get('what')} {entry.get('why')}") for entry in entries or []]


def _data(text: bytes) -> dict[str, Any]:
    """A paper's file; one that could not be read at an earlier commit asked for nothing."""
    try:
        return parse_document(text, "paper.yaml", "a paper's declaration")
    except DeclarationError:
        return {}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        kept = {("over" if key == "times" else key): _plain(item) for key, item in value.items() if key not in _WORDS}
        return dict(sorted(kept.items()))
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


class _Git:
    """What is asked of a repository, with one process for many files."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._files: dict[tuple[str, str], bytes] = {}
        top = self._run(["rev-parse", "--show-toplevel"])
        if top is None or Path(top.decode().strip()).resolve() != root.resolve():
            raise NoGitHistory(f"{root} is not the top folder of a git checkout, so nothing tells when a bar was set.")

    def load(self, wanted: set[tuple[str, str]]) -> None:
        """Read files at commits ahead; a file that was not there yet is empty."""
        order = sorted(wanted - self._files.keys())
        asked = [line for commit, path in order for line in (f"{commit}^{{commit}}", f"{commit}:{path}")]
        output = (self._run(["cat-file", "--batch"], "\n".join(asked).encode() + b"\n") or b"") if asked else b""
        found = iter(_objects(output))
        for commit, path in order:
            if next(found, None) is None:
                raise NoGitHistory(
                    f"{commit or '(no commit)'} is not in this checkout; get all of its history: git fetch --unshallow."
                )
            self._files[commit, path] = next(found, None) or b""

    def file(self, commit: str, path: str) -> bytes:
        """Return a file at a commit; empty where it was not there yet."""
        self.load({(commit, path)})
        return self._files[commit, path]

    def commits(self, since: str, path: str) -> list[tuple[str, str]]:
        """Return commit and day of every change of a file behind a commit, oldest first."""
        lines = (self._run(["log", "--reverse", "--format=%H %as", f"{since}..HEAD", "--", path]) or b"").decode()
        found = [(commit, day) for commit, _, day in (line.partition(" ") for line in lines.splitlines())]
        self.load({(commit, path) for commit, _ in found})
        return found

    def _run(self, words: list[str], given: bytes = b"") -> bytes | None:
        try:
            done = subprocess.run(["git", "-C", str(self._root), *words], input=given, capture_output=True, check=False)
        except OSError:
            return None
        return done.stdout if done.returncode == 0 else None


def _objects(output: bytes) -> Iterator[bytes | None]:
    """Split what `git cat-file --batch` says: the content of each object, None where there is none."""
    position = 0
    while position < len(output):
        line_end = output.index(b"\n", position)
        header = output[position:line_end]
        if header.endswith(b" missing"):
            yield None
            position = line_end + 1
            continue
        size = int(header.rsplit(b" ", 1)[1])
        yield output[line_end + 1 : line_end + 1 + size]
        position = line_end + 1 + size + 1
