import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from components.tokenizers.text import digit_splitting
from components.tokenizers.text.digit_splitting import DigitSplittingTokenizer, UnsplittableNumber, split_digits

PIECES = [
    "<pad>", "</s>", "<unk>", "▁", "▁the", "▁price", "▁was", "▁42", "42", "19", "▁1", "▁km2", "k", "m", ".", ",", "-",
    *"0123456789", "<extra_id_0>",
]  # fmt: skip


def tokenizer(pieces: list[str]) -> Tokenizer:
    made = Tokenizer(models.Unigram([(piece, -float(place)) for place, piece in enumerate(pieces)], unk_id=2))
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.decoder = decoders.Metaspace()
    made.add_special_tokens(["<pad>", "</s>", "<extra_id_0>"])
    return made


@pytest.mark.parametrize(
    ("piece", "parts"),
    [
        ("▁42", ["▁", "4", "2"]),
        ("▁price", ["▁price"]),
        ("7", ["7"]),
        ("km2", ["k", "m", "2"]),
        ("3.5", ["3", ".", "5"]),
    ],
)
def test_only_pieces_with_a_digit_are_broken_up(piece, parts):
    assert split_digits(piece) == parts


def test_numbers_are_spelled_digit_by_digit_and_words_stay_whole():
    merged = tokenizer(PIECES)
    assert "▁42" in merged.encode("the price was 42", add_special_tokens=False).tokens
    split = DigitSplittingTokenizer(merged)
    pieces = [split.vocabulary[token] for token in split.encode("the price was 42")]
    assert pieces == ["▁the", "▁price", "▁was", "▁", "4", "2"]
    assert split.decode(split.encode("the price was 42")) == "the price was 42"
    pieces = [split.vocabulary[token] for token in split.encode("19 km2")]
    assert [piece for piece in pieces if piece != "▁"] == ["1", "9", "k", "m", "2"]


def test_the_vocabulary_keeps_its_ids_so_that_embeddings_still_fit():
    merged = tokenizer(PIECES)
    split = DigitSplittingTokenizer(merged)
    assert {piece: token for token, piece in enumerate(split.vocabulary)} == merged.get_vocab()
    assert [split.vocabulary[token] for token in split.number_tokens.ids] == list("0123456789")
    assert split.vocabulary[split.end_token] == "</s>"
    extra = split.vocabulary.index("<extra_id_0>")
    assert split.encode("<extra_id_0>") == [extra], "a sentinel is no number"


def test_batches_are_padded_and_read_up_to_their_end(tmp_path):
    split = DigitSplittingTokenizer(tokenizer(PIECES))
    encoded = split.encode_all(["the price", "42"])
    assert encoded.lengths.tolist() == [2, 3]
    assert encoded.ids[0].tolist() == [*split.encode("the price"), -1]
    assert split.decode_all(encoded.ids) == ["the price", "42"]
    assert split.decode([*split.encode("42"), split.end_token, *split.encode("19")]) == "42"
    split.save(tmp_path / "tokenizer.json")
    assert digit_splitting.load(tmp_path / "tokenizer.json").vocabulary == split.vocabulary


@pytest.mark.parametrize(
    ("missing", "message"), [("7", "the vocabulary needs the pieces"), ("k", "the piece '▁km2' needs the pieces")]
)
def test_a_vocabulary_that_cannot_spell_its_numbers_is_refused(missing, message):
    with pytest.raises(UnsplittableNumber, match=message):
        DigitSplittingTokenizer(tokenizer([piece for piece in PIECES if piece != missing]))
