"""Emoji pictures joined with their names."""

from __future__ import annotations

import io
import json
import tarfile

import pytest

from components.data import emoji, parquet

LISTED = {
    "👋": {"name": "waving hand", "group": "People & Body", "emoji_version": "0.6"},
    "🤝": {"name": "handshake", "group": "People & Body", "emoji_version": "3.0"},
    "❤\ufe0f": {"name": "red heart", "group": "Smileys & Emotion", "emoji_version": "0.6"},
}
PICTURES = ["1f44b", "1f44b_1f3fb", "2764_fe0f", "1faf1_1f3fb_200d_1faf2_1f3ff", "0023", "1f44b_1f3ff"]


@pytest.fixture
def table(tmp_path):
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as archive:
        for size in ("32", "72", "128"):
            for points in [*PICTURES, *(["1f600"] if size == "32" else [])]:
                content = f"{size} {points}".encode()
                member = tarfile.TarInfo(f"noto-emoji-0/png/{size}/emoji_u{points}.png")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    (tmp_path / "list.json").write_text(json.dumps(LISTED))
    emoji.convert({"noto-emoji.tar.gz": tmp_path / "a.tar.gz", "data-by-emoji.json": tmp_path / "list.json"}, tmp_path)
    return parquet.read(tmp_path / "noto_emoji.parquet")


def test_rows_follow_the_list_and_components_come_last(table):
    assert table.select("codepoints", "name", "skin_tone").rows() == [
        ("1f44b", "waving hand", None),
        ("1f44b 1f3fb", "waving hand: light skin tone", "light"),
        ("1f44b 1f3ff", "waving hand: dark skin tone", "dark"),
        ("1faf1 1f3fb 200d 1faf2 1f3ff", "handshake: light skin tone, dark skin tone", "light, dark"),
        ("2764", "red heart", None),
        ("0023", None, None),
    ]


def test_only_emoji_with_both_sizes_are_kept_with_their_bytes_unchanged(table):
    assert "1f600" not in table["codepoints"].to_list()
    assert table["png32"][4] == b"32 2764_fe0f"
    assert table["png72"][4] == b"72 2764_fe0f"
    assert table["emoji"][1] == "👋🏻"
