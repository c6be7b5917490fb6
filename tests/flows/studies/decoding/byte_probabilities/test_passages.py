import numpy as np
import pytest

from components.data import tables
from components.tokenizers.text.byte_level import to_bytes, to_symbols
from flows.studies.decoding import standin
from flows.studies.decoding.byte_probabilities.passages import (
    Cut,
    HeldOut,
    Passage,
    TooFewPassages,
    take_cut,
    take_gap,
    token_ends,
)


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    path = tmp_path_factory.mktemp("python-source")
    standin.make("python-source", path)
    return path


def documents(directory, split: str) -> dict[str, str]:
    frame = tables.read_split(directory, split, ["module", "text"])
    return {module: to_symbols(text) for module, text in frame.iter_rows()}


def assert_stands_in(passage: Passage, texts: dict[str, str], most: int) -> None:
    module, _, place = passage.name.rpartition("@")
    text, start = texts[module], int(place)
    assert text.startswith(passage.text, start)
    assert start == 0 or text[start - 1] == "\n"
    assert passage.text.endswith("\n")
    assert 0 < len(passage.text) <= most
    rest = text[start + len(passage.text) :]
    assert "\n" not in rest or len(passage.text) + rest.index("\n") + 1 > most


def test_passages_are_as_many_whole_lines_of_test_documents_as_fit(directory):
    held_out, texts = HeldOut(directory, 60), documents(directory, "test")
    generator = np.random.default_rng(0)
    drawn = [held_out.draw(generator) for _ in range(200)]
    for passage in drawn:
        assert_stands_in(passage, texts, 60)
    assert len({passage.name.rpartition("@")[0] for passage in drawn}) > len(texts) / 2
    assert not texts.keys() & documents(directory, "train").keys()


def test_scored_texts_never_overlap_and_have_the_wanted_bytes(directory):
    held_out, texts = HeldOut(directory, 60), documents(directory, "test")
    passages = held_out.texts(1000, np.random.default_rng(0))
    total = sum(len(passage.text) for passage in passages)
    assert 1000 <= total < 1060
    seen = set()
    for passage in passages:
        assert_stands_in(passage, texts, 60)
        module, _, start = passage.name.rpartition("@")
        places = {(module, place) for place in range(int(start), int(start) + len(passage.text))}
        assert not seen & places
        seen |= places
    everything = held_out.texts(10**9, np.random.default_rng(0))
    whole = sum(text.rindex("\n") + 1 for text in texts.values())
    assert sum(len(passage.text) for passage in everything) == whole


@pytest.mark.parametrize("inside", [True, False])
def test_cuts_are_drawn_uniformly_among_the_places_of_their_kind(inside):
    passage = Passage("m@0", "aabbbcddd\n")
    ends = [2, 5, 6, 9, 10]
    allowed = {3, 4, 7} if inside else {2, 5, 6}
    generator = np.random.default_rng(0)
    cuts = [take_cut(passage, ends, inside, 2, 3, generator) for _ in range(600)]
    places = [len(cut.prompt) for cut in cuts]
    assert set(places) == allowed
    assert all(abs(places.count(place) - 200) < 60 for place in allowed)
    assert all(cut.prompt + cut.following == passage.text and cut.line == cut.following for cut in cuts)
    assert cuts[0].name == f"m@0+{places[0]}"
    assert take_cut(passage, ends, inside, 8, 3, generator) is None


def test_the_rest_of_a_line_ends_with_its_break():
    assert Cut("x", "def f", "(a):\n    return a\n").line == "(a):\n"


def test_gaps_are_spans_of_characters_inside_one_line_and_lose_nothing():
    text = to_symbols("é = 'ü'\nnäme = 1\n")
    generator = np.random.default_rng(0)
    gaps = [take_gap(Passage("m@5", text), 2, 4, generator) for _ in range(300)]
    for gap in gaps:
        assert gap.prefix + gap.middle + gap.suffix == text
        assert gap.prefix
        middle = to_bytes(gap.middle).decode()
        assert 2 <= len(middle) <= 4
        assert "\n" not in middle
    assert {len(to_bytes(gap.middle).decode()) for gap in gaps} == {2, 3, 4}
    # Characters 1 to 5 of the first line and 0 to 6 of the second begin spans of two.
    assert {len(to_bytes(gap.prefix).decode()) for gap in gaps} == {*range(1, 6), *range(8, 15)}
    assert take_gap(Passage("m@5", "a\n"), 2, 4, generator) is None


def test_places_that_are_not_there_are_said_so(directory):
    held_out = HeldOut(directory, 60)
    with pytest.raises(TooFewPassages, match="0 of 3 places"):
        held_out.wanted(3, lambda passage: None, np.random.default_rng(0))
    with pytest.raises(TooFewPassages, match="1 of 3 places"):
        held_out.wanted(3, lambda passage: Cut("same", "", ""), np.random.default_rng(0))
    with pytest.raises(TooFewPassages, match="no test document"):
        HeldOut(directory, 0)


def test_token_ends_are_counted_in_symbols():
    assert token_ends(("a", "bcd", "ef"), [1, 0, 2]) == [3, 4, 6]
    assert token_ends(("a",), []) == []
