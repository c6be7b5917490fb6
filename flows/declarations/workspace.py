"""Everything that is declared in one checkout: papers, data sets, bases, the catalogue."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ValidationError

from components.errors import TesseraError, did_you_mean
from flows.declarations.bases import Base
from flows.declarations.catalogue import CatalogueEntry
from flows.declarations.checks import PaperChecks, find_cycle
from flows.declarations.document import Document, dotted, read_document
from flows.declarations.leaderboards import Leaderboard
from flows.declarations.leaderboards import faults as leaderboard_faults
from flows.declarations.names import credentials, unusable_names
from flows.declarations.paper import Paper
from flows.declarations.parameters import StudyParams
from flows.declarations.problems import DeclarationError, Problem, sort_problems
from flows.declarations.study import StudyError, UnknownStudy, load_recipe
from flows.declarations.validation import fault_message, field_names, problems_of

if TYPE_CHECKING:
    from components.data.declaration import DataSet

Entry = TypeVar("Entry", bound=BaseModel)

DATA_FILE = "params/data.yaml"
BASES_FILE = "params/bases.yaml"
CATALOGUE_FILE = "params/catalogue.yaml"
LEADERBOARDS_FILE = "params/leaderboards.yaml"


class UnknownPaper(TesseraError):
    """No folder of params/ declares a paper of this name."""


class UnknownBase(TesseraError):
    """params/bases.yaml has no entry of this name."""


class UnknownDataSet(TesseraError):
    """params/data.yaml has no entry of this name."""


class NoWorkspace(TesseraError):
    """The folder is not inside a checkout."""


def find_root(start: Path) -> Path:
    """Return the nearest folder at or above `start` that holds `params/` and `flows/` or `dvc.yaml`.

    Raises:
        NoWorkspace: There is none.
    """
    start = Path(start).resolve()
    for folder in (start, *start.parents):
        if (folder / "params").is_dir() and ((folder / "dvc.yaml").is_file() or (folder / "flows").is_dir()):
            return folder
    raise NoWorkspace(f"{start} is not inside a Tessera checkout (a folder with params/); change into one.")


class Workspace:
    """The declarations below one root, each read when it is first asked for."""

    def __init__(self, root: Path) -> None:
        self.root = Path(root).resolve()
        self._papers: dict[str, Paper] = {}

    @classmethod
    def load(cls, root: Path) -> Workspace:
        """Open a workspace; costs nothing until something is read."""
        return cls(root)

    @cached_property
    def slugs(self) -> tuple[str, ...]:
        """Every folder of params/ that declares a paper, sorted."""
        return tuple(sorted(file.parent.name for file in (self.root / "params").glob("*/paper.yaml")))

    def paper(self, slug: str) -> Paper:
        """Return one paper.

        Raises:
            UnknownPaper: There is no such folder.
            DeclarationError: Its file cannot be used; names are not checked against other files (see `problems`).
        """
        if slug not in self._papers:
            if slug not in self.slugs:
                hint = did_you_mean(slug, self.slugs)
                if not hint and slug in self.catalogue:
                    hint = " It is in the catalogue but not built yet; CONTRIBUTING.md says how."
                raise UnknownPaper(f"{slug!r} is not in params/.{hint}")
            self._papers[slug] = Paper.read(self._paper_document(slug))
        return self._papers[slug]

    @property
    def papers(self) -> dict[str, Paper]:
        """Every paper by slug.

        Raises:
            DeclarationError: Listing the faults of all papers that cannot be used.
        """
        found, problems = {}, []
        for slug in self.slugs:
            try:
                found[slug] = self.paper(slug)
            except DeclarationError as error:
                problems += error.problems
        if problems:
            raise DeclarationError(problems)
        return found

    @cached_property
    def data(self) -> dict[str, DataSet]:
        """Every data set of data.yaml by name; empty where there is no such file."""
        from components.data.declaration import DataSet

        return self._entries(DATA_FILE, "data sets by name", DataSet)

    @cached_property
    def bases(self) -> dict[str, Base]:
        """Every base of bases.yaml by name; empty where there is no such file."""
        return self._entries(BASES_FILE, "bases by name", Base)

    @cached_property
    def catalogue(self) -> dict[str, CatalogueEntry]:
        """Every paper of the platform by slug, whether it is built or not."""
        return self._entries(CATALOGUE_FILE, "papers by slug", CatalogueEntry)

    @cached_property
    def leaderboards(self) -> dict[str, Leaderboard]:
        """Every leaderboard by name; empty where there is no such file."""
        return self._entries(LEADERBOARDS_FILE, "leaderboards by name", Leaderboard)

    def slugs_of(self, study: str) -> list[str]:
        """Return the papers of a study; a paper that cannot be read is reported for its own file."""
        found = []
        for slug in self.slugs:
            with contextlib.suppress(DeclarationError):
                if self.paper(slug).study == study:
                    found.append(slug)
        return found

    def data_set(self, name: str) -> DataSet:
        """Return one data set.

        Raises:
            UnknownDataSet: data.yaml has no such entry.
        """
        if name not in self.data:
            raise UnknownDataSet(f"{name!r} is not in {DATA_FILE}.{did_you_mean(name, self.data)}")
        return self.data[name]

    def base(self, name: str) -> Base:
        """Return one base.

        Raises:
            UnknownBase: bases.yaml has no such entry.
        """
        if name not in self.bases:
            raise UnknownBase(f"{name!r} is not in {BASES_FILE}.{did_you_mean(name, self.bases)}")
        return self.bases[name]

    def base_params(self, name: str) -> StudyParams:
        """Return the typed parameters of a base's recipe.

        Raises:
            UnknownBase: bases.yaml has no such entry.
            UnknownStudy: There is no such recipe.
            DeclarationError: A parameter is unknown or has a wrong value.
        """
        base = self.base(name)
        model = load_recipe(base.recipe).params
        try:
            return model.model_validate(base.params)
        except ValidationError as error:
            document = self._bases_document
            problems = []
            for fault in error.errors(include_url=False):
                location = (name, "params", *fault["loc"])
                words = fault_message(fault, field_names(model))
                problems.append(Problem(document.path, document.line(location), dotted(location), words))
            raise DeclarationError(problems) from None

    def problems(self, slugs: list[str] | None = None) -> list[Problem]:
        """Check everything (or only some papers) and return all that is wrong, errors and warnings.

        Args:
            slugs: Papers to check; all of them, data.yaml, bases.yaml and the catalogue where this is None.

        Raises:
            UnknownPaper: One of `slugs` is not in params/.
        """
        for slug in slugs or ():
            if slug not in self.slugs:
                raise UnknownPaper(f"{slug!r} is not in params/.{did_you_mean(slug, self.slugs)}")
        shared: list[Problem] = []
        data = self._names("data", shared)
        bases = self._names("bases", shared)
        self._names("catalogue", shared)
        if bases is not None:
            shared += self._base_problems(data)
        if self._names("leaderboards", shared) is not None:
            shared += self._leaderboard_problems(data)
        found = [] if slugs is not None else shared
        for slug in self.slugs if slugs is None else slugs:
            found += self._paper_problems(slug, data, bases)
        return sort_problems(found)

    def _names(self, section: str, problems: list[Problem]) -> list[str] | None:
        try:
            return list(getattr(self, section))
        except DeclarationError as error:
            problems += error.problems
            return None

    def _paper_problems(self, slug: str, data: list[str] | None, bases: list[str] | None) -> list[Problem]:
        try:
            document = self._paper_document(slug)
        except DeclarationError as error:
            return error.problems
        paper, replaced, found = _read_what_is_sound(document)
        found += credentials(document)
        if paper is not None:
            try:
                catalogue: Mapping[str, CatalogueEntry] = self.catalogue
            except DeclarationError:  # reported once, for its own file
                catalogue = {}
            found += PaperChecks(paper, document, replaced, data, bases, catalogue).problems()
        return found

    def _base_problems(self, data: list[str] | None) -> list[Problem]:
        if not self.bases:
            return []
        document = self._bases_document
        found = []

        def report(location: tuple[str | int, ...], words: str) -> None:
            found.append(Problem(document.path, document.line(location), dotted(location), words))

        for name, base in self.bases.items():
            for section, known in (("data", data), ("bases", list(self.bases))):
                for index, used in enumerate(getattr(base, section)):
                    if known is not None and used not in known:
                        words = f"{used!r} is not in params/{section}.yaml.{did_you_mean(used, known)}"
                        report((name, section, index), words)
            try:
                self.base_params(name)
            except DeclarationError as error:
                found += error.problems
            except (UnknownStudy, StudyError) as error:
                report((name, "recipe"), str(error))
        cycle = find_cycle({name: base.bases for name, base in self.bases.items()})
        if cycle:
            report((cycle[0], "bases"), f"the bases are built on each other in a cycle: {' -> '.join(cycle)}.")
        return found

    def _leaderboard_problems(self, data: list[str] | None) -> list[Problem]:
        if not self.leaderboards:
            return []
        document = read_document(self.root, LEADERBOARDS_FILE, "leaderboards by name")
        return [
            Problem(document.path, document.line((name, *location)), dotted((name, *location)), words)
            for name, board in self.leaderboards.items()
            for location, words in leaderboard_faults(board, data, self.slugs_of(board.study))
        ]

    def _paper_document(self, slug: str) -> Document:
        return read_document(self.root, f"params/{slug}/paper.yaml", "a paper's declaration")

    @cached_property
    def _bases_document(self) -> Document:
        return read_document(self.root, BASES_FILE, "bases by name")

    def _entries(self, path: str, expected: str, model: type[Entry]) -> dict[str, Entry]:
        if not (self.root / path).is_file():
            return {}
        document = read_document(self.root, path, expected)
        found: dict[str, Entry] = {}
        problems = [*unusable_names(document), *credentials(document)]
        for name, value in document.data.items():
            try:
                found[name] = model.model_validate(value)
            except ValidationError as error:
                problems += problems_of(error, model, document, (name,))
        if problems:
            raise DeclarationError(problems)
        return found


def _read_what_is_sound(document: Document) -> tuple[Paper | None, set[str], list[Problem]]:
    """Read a paper; where parts of it are faulty, report them, put stand-ins in their place and read the rest.

    Otherwise one missing value would hide a misspelled arm until the next run.

    Returns:
        The paper (None where stand-ins do not help), the top-level keys that hold one, and the problems found.
    """
    data = document.data
    problems: list[Problem] = []
    for _ in range(_ATTEMPTS):
        try:
            paper = Paper.model_validate(data)
        except ValidationError as error:
            if not problems:
                problems = problems_of(error, Paper, document)
                data = copy.deepcopy(data)
            for fault in error.errors(include_url=False, include_input=False):
                _stand_in(data, fault["loc"])
            continue
        paper._document = document
        replaced = {key for key, value in _STAND_INS.items() if data.get(key) == value != document.data.get(key)}
        return paper, replaced, problems
    return None, set(), problems


# A stand-in can itself bring up a fault (a name that is now missing), so a few rounds are needed; more never help.
_ATTEMPTS = 4

_STAND_INS: dict[str, Any] = {
    "slug": "unknown",
    "title": "unknown",
    "family": "text",
    "study": "unknown",
    "story": "unknown",
    "seeds": [0, 1, 2],
    "arms": {"unknown": {}},
    "variants": {"unknown": {"canonical": True}},
    "profiles": {},
    "claims": [],
}
_TEST: dict[str, Any] = {"metric": "", "arm": "", "above": 0}
_CLAIM: dict[str, Any] = {"id": "unknown", "says": "-", "cites": "-", "scope": "full-only", "needs": "-"}


def _stand_in(data: dict[str, Any], location: tuple[Any, ...]) -> None:
    """Replace the faulty value at a location by one that is sound and about which the checks say nothing."""
    section, *inner = location or ("",)
    if not inner or not isinstance(data.get(section), dict | list):
        if section in _STAND_INS:
            data[section] = copy.deepcopy(_STAND_INS[section])
        else:
            data.pop(section, None)
    elif section == "claims":
        _stand_in_claim(data["claims"], *inner)
    elif isinstance(data[section], list):
        del data[section]
    else:
        name, *key = inner
        entry = data[section].get(name)
        if key and isinstance(entry, dict) and key[0] in entry:
            del entry[key[0]]
        else:
            data[section].pop(name, None)


def _stand_in_claim(claims: list[Any], index: int, key: str = "", *inner: Any) -> None:
    claim = claims[index]
    if not isinstance(claim, dict) or not key:
        claims[index] = dict(_CLAIM)
    elif key in ("tests", "gates") and inner and isinstance(claim.get(key), list) and inner[0] < len(claim[key]):
        claim[key][inner[0]] = dict(_TEST)
    elif key in _CLAIM:
        claim[key] = _CLAIM[key]
        claim.setdefault("needs", _CLAIM["needs"])
    else:
        claim.pop(key, None)
