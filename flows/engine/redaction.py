"""Secrets of the environment stay out of what a run writes: logs, messages, tags, records that wait to be sent.

Nothing of ours prints a token. A library may, in the message of an exception or in a log of its requests, and a stage
may print anything. So whatever leaves a stage or the command line passes here, and the values of variables whose names
say that they are secret, and the passwords inside addresses, are replaced by the name of their variable.
"""

from __future__ import annotations

import base64
import os
import re
import urllib.parse
from collections.abc import Iterator, Mapping
from pathlib import Path

from components.training.atomic import write_bytes

SHORTEST = 6
"""Characters; shorter values are words that stand in any text, and no secrets."""

_SECRET = re.compile(
    r"TOKEN|PASSWORD|PASSWD|PASSPHRASE|SECRET|CREDENTIAL|AUTH_STRING|API_?KEY|ACCESS_?KEY|PRIVATE_?KEY", re.IGNORECASE
)
# Names that say where a secret lies, or how many tokens there are.
_HARMLESS = re.compile(r"_(?:PATH|FILE|DIR|URL|URI|MODE|PARALLELISM|LIMIT|COUNT|TTL)$", re.IGNORECASE)
_IN_ADDRESS = re.compile(r"(?<=://)[^\s/?#@:]*:([^\s/?#@]+)(?=@)")


def redact(text: str, environment: Mapping[str, str] | None = None) -> str:
    """Return a text without the secrets of the environment, and without passwords in addresses.

    Args:
        text: Any text.
        environment: Variables; by default those of this process.
    """
    known = dict(_secrets(os.environ if environment is None else environment))
    if known and any(secret in text for secret in known):
        # The longest first: a secret may be part of another one.
        pattern = "|".join(re.escape(secret) for secret in sorted(known, key=len, reverse=True))
        text = re.sub(pattern, lambda found: f"[{known[found[0]]}]", text)
    return without_credentials(text) if "@" in text else text


def without_credentials(text: str) -> str:
    """Return a text whose addresses have no user and password, but begin with their host."""
    return re.sub(r"(?<=://)[^\s/?#@]+@", "", text)


def scrub(path: Path) -> None:
    """Take the secrets of the environment out of a text file; a file without any is left as it is."""
    try:
        text = path.read_bytes().decode("utf-8", errors="surrogateescape")
    except OSError:
        return
    redacted = redact(text)
    if redacted != text:
        write_bytes(path, redacted.encode("utf-8", errors="surrogateescape"))


def _secrets(environment: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Yield (secret, what to write instead), in the spellings in which a secret is sent."""
    for name, value in environment.items():
        if _SECRET.search(name) and not _HARMLESS.search(name):
            found = [value, value.partition(":")[2]]
            if ":" in value:
                found.append(base64.b64encode(value.encode()).decode())
        elif "://" in value and "@" in value:
            found = _IN_ADDRESS.findall(value)
        else:
            continue
        for secret in found:
            for spelling in (secret, urllib.parse.quote(secret, safe=""), urllib.parse.unquote(secret)):
                if len(spelling) >= SHORTEST:
                    yield spelling, name
