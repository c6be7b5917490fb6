"""What each code digest stands for: `params/code.lock`, which lets `tessera why` name the changed function.

A digest alone says that code changed, not what. The lock lists, for every digest that stands in a `dvc.lock` or is
current, the modules behind it, and for every such module its symbols with their hashes:

    digest <unit digest> <module key> <module key> ...
    module <module key> components.quantizers.vq Codebook.nearest=1f0c22ab (imports)=90aa31c4 ...

It is content-addressed and lines are sorted, so two branches merge line by line (`merge=union` in .gitattributes), and
many units share the same lines. It only explains; nothing is decided by it, and where an entry is missing `tessera why`
says "the code changed" without details.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from flows.declarations.files import write_if_changed

PATH = "params/code.lock"
_KEY_DIGITS = 12
_LOCKED_DIGEST = re.compile(r"""\.code: ['"]?([0-9a-f]{16,})""")


@dataclass(frozen=True)
class ModuleRecord:
    """One module as it was: its name and the hash of each symbol."""

    name: str
    symbols: Mapping[str, str]


@dataclass
class CodeLock:
    """The modules behind digests.

    Attributes:
        modules: Record of a module by its key, a hash of the record.
        digests: Module keys by unit digest.
    """

    modules: dict[str, ModuleRecord] = field(default_factory=dict)
    digests: dict[str, tuple[str, ...]] = field(default_factory=dict)

    @classmethod
    def read(cls, root: Path) -> CodeLock:
        """Read the lock; lines that are damaged or doubled by a merge do no harm."""
        lock = cls()
        try:
            text = (root / PATH).read_text(encoding="utf-8")
        except FileNotFoundError:
            return lock
        for line in text.splitlines():
            kind, *words = line.split(" ")
            if kind == "digest" and len(words) >= 1:
                lock.digests[words[0]] = tuple(words[1:])
            elif kind == "module" and len(words) >= 2:
                symbols = (word.rpartition("=") for word in words[2:])
                lock.modules[words[0]] = ModuleRecord(words[1], {name: digest for name, _, digest in symbols})
        return lock

    def of(self, digest: str) -> dict[str, Mapping[str, str]] | None:
        """Return the symbols of every module behind a unit digest, by module; None where they are not recorded."""
        modules = [self.modules.get(module) for module in self.digests.get(digest, ())]
        if digest not in self.digests or None in modules:
            return None
        return {module.name: module.symbols for module in modules if module is not None}

    def add(self, digest: str, modules: Iterable[ModuleRecord]) -> None:
        """Record the modules behind a unit digest."""
        keys = []
        for record in modules:
            keys.append(hashlib.sha256(_module_line(record).encode()).hexdigest()[:_KEY_DIGITS])
            self.modules[keys[-1]] = record
        self.digests[digest] = tuple(keys)

    def keep(self, digests: Iterable[str]) -> None:
        """Forget all other unit digests, and the modules that only they used."""
        kept = set(digests)
        self.digests = {digest: modules for digest, modules in self.digests.items() if digest in kept}
        used = {module for modules in self.digests.values() for module in modules}
        self.modules = {module: record for module, record in self.modules.items() if module in used}

    def write(self, root: Path) -> bool:
        """Write the lock; return whether it changed."""
        lines = [" ".join(("digest", digest, *modules)) for digest, modules in self.digests.items()]
        lines += [f"module {key} {_module_line(record)}" for key, record in self.modules.items()]
        header = "# What the code digests in dvc.lock and digests.json stand for; written by the stage `code`."
        return write_if_changed(root / PATH, ("\n".join([header, *sorted(lines)]) + "\n").encode())


def _module_line(record: ModuleRecord) -> str:
    return " ".join((record.name, *(f"{name.replace(' ', '')}={value}" for name, value in record.symbols.items())))


def locked_digests(root: Path) -> set[str]:
    """Return every code digest that stands in a `dvc.lock` of the workspace."""
    locks = [root / "dvc.lock", *(root / "params").glob("*/dvc.lock"), *(root / "params").glob("*/full/dvc.lock")]
    texts = (lock.read_text(encoding="utf-8", errors="replace") for lock in locks if lock.is_file())
    return {digest for text in texts for digest in _LOCKED_DIGEST.findall(text)}
