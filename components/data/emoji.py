"""Noto emoji: small pictures with English names, from the font's repository and Unicode's list.

A picture is identified by its code points in hexadecimal, without the presentation selector U+FE0F.
"""

from __future__ import annotations

import json
import re
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from components.data import parquet

_TONES = {"1f3fb": "light", "1f3fc": "medium-light", "1f3fd": "medium", "1f3fe": "medium-dark", "1f3ff": "dark"}
# Two people with two skin tones are spelled out person by person; the list knows the pair under one character.
_PAIRS = {
    "1faf1 200d 1faf2": "1f91d",
    "1f469 200d 1f91d 200d 1f469": "1f46d",
    "1f469 200d 1f91d 200d 1f468": "1f46b",
    "1f468 200d 1f91d 200d 1f468": "1f46c",
    "1f9d1 200d 2764 200d 1f48b 200d 1f9d1": "1f48f",
    "1f9d1 200d 2764 200d 1f9d1": "1f491",
}
_SCHEMA = {
    "codepoints": pl.String,
    "emoji": pl.String,
    "name": pl.String,
    "group": pl.String,
    "skin_tone": pl.String,
    "emoji_version": pl.String,
    "png32": pl.Binary,
    "png72": pl.Binary,
}


def convert(paths: Mapping[str, Path], directory: Path) -> None:
    """Write `noto_emoji.parquet`: every code point sequence that has pictures of 32 and of 72 pixels.

    Args:
        paths: `noto-emoji.tar.gz`, an archive with `<root>/png/<size>/emoji_u<code points>.png`, and
            `data-by-emoji.json`, Unicode's list by character.
        directory: Where to write.
    """
    pictures: dict[str, dict[str, bytes]] = {"32": {}, "72": {}}
    with tarfile.open(paths["noto-emoji.tar.gz"], "r:*") as members:
        for member in members:
            found = re.fullmatch(r"[^/]+/png/(32|72)/emoji_u([0-9a-f_]+)\.png", member.name)
            if found and member.isfile():
                points = " ".join(point for point in found[2].split("_") if point != "fe0f")
                pictures[found[1]][points] = members.extractfile(member).read()
    listed = _by_code_points(json.loads(paths["data-by-emoji.json"].read_text(encoding="utf-8")))
    rows = []
    for points in pictures["32"].keys() & pictures["72"].keys():
        position, described = _describe(points, listed)
        emoji = "".join(chr(int(point, 16)) for point in points.split())
        rows.append((position, points, emoji, *described, pictures["32"][points], pictures["72"][points]))
    rows.sort()
    frame = pl.DataFrame([row[1:] for row in rows], schema=_SCHEMA, orient="row")
    parquet.write(frame, directory / "noto_emoji.parquet")


def _by_code_points(emoji: Mapping[str, Any]) -> dict[str, tuple[int, Any]]:
    """Return position and entry of each emoji of the list by its code points."""
    listed: dict[str, tuple[int, Any]] = {}
    for character, entry in emoji.items():
        points = " ".join(f"{ord(part):04x}" for part in character if part != "\ufe0f")
        listed.setdefault(points, (len(listed), entry))
    return listed


def _describe(points: str, listed: Mapping[str, tuple[int, Any]]) -> tuple[int, tuple[str | None, ...]]:
    """Return the position in the list and (name, group, skin tones, version); components come last, without a name."""
    parts = points.split()
    tones = [_TONES[part] for part in parts if part in _TONES]
    bare = " ".join(part for part in parts if part not in _TONES)
    found = listed.get(points) or listed.get(bare) or listed.get(_PAIRS.get(bare, ""))
    if found is None:
        return len(listed), (None, None, None, None)
    position, entry = found
    name = entry["name"]
    if points not in listed:
        name += ": " + ", ".join(f"{tone} skin tone" for tone in dict.fromkeys(tones))
    return position, (name, entry["group"], ", ".join(tones) or None, entry["emoji_version"])
