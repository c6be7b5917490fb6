"""The sentence encoder: batching changes nothing, files come back as they were, the published model is itself."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from components.data.errors import DataError, MissingTable
from components.data.model_files import from_files
from components.encoders.random_sentence import random_sentence_encoder, redraw
from components.encoders.sentence import (
    FILES,
    SentenceEncoder,
    SentenceEncoderError,
    length_sorted_batches,
    load_sentence_encoder,
    save_sentence_encoder,
)

PIECES = [*"abcdefg", "word", "##s", "other"]
TEXTS = ["a b c", "word", "", "words other a a a b", "c d [CLS] e", "G F e d c b a"]
PUBLISHED = Path(__file__).parents[3] / "data" / "all-minilm-l6-v2"


@pytest.fixture(scope="module")
def encoder() -> SentenceEncoder:
    return random_sentence_encoder(PIECES)


def test_texts_become_word_pieces_between_the_tokens_of_both_ends(encoder):
    vocabulary = encoder.tokenizer.get_vocab()
    pieces = [["[CLS]", "word", "##s", "other", "[SEP]"], ["[CLS]", "a", "[SEP]"]]
    ids, mask = encoder.tokenize(["Words other", "A"])
    assert ids.tolist() == [
        [vocabulary[piece] for piece in pieces[0]],
        [vocabulary[piece] for piece in pieces[1]] + [0, 0],
    ]
    assert mask.tolist() == [[True] * 5, [True] * 3 + [False] * 2]


def test_a_special_name_in_a_text_is_read_as_that_token(encoder):
    assert encoder.tokenize(["[CLS]"]).ids[0, 1] == encoder.tokenizer.token_to_id("[CLS]")


def test_truncation_drops_the_last_tokens_and_keeps_the_end(encoder):
    whole = encoder.token_ids(["a b c d e"])[0]
    assert encoder.token_ids(["a b c d e"], max_length=5)[0] == [*whole[:4], whole[-1]]
    assert encoder.token_ids(["a b c"], max_length=5)[0] == encoder.token_ids(["a b c"])[0]


@given(st.lists(st.sampled_from(TEXTS), max_size=9), st.integers(1, 5))
@settings(max_examples=20, deadline=None)
def test_a_vector_depends_neither_on_the_batch_nor_on_the_order(encoder, texts, batch_size):
    alone = [encoder.encode([text])[0] for text in texts]
    vectors = encoder.encode(texts, batch_size)
    assert vectors.shape == (len(texts), 32)
    if texts:
        torch.testing.assert_close(vectors, torch.stack(alone), atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(vectors.norm(dim=-1), torch.ones(len(texts)))


def test_batches_hold_every_text_once_in_order_of_length_and_end_half_full_where_the_length_changes():
    rows = [[1] * length for length in (5, 2, 9, 2, 7, 1, 9)]
    batches = list(length_sorted_batches(rows, 4))
    places = [place for each, _ in batches for place in each.tolist()]
    assert places == [5, 1, 3, 0, 4, 2, 6]
    assert [tuple(tokens.ids.shape) for _, tokens in batches] == [(3, 2), (2, 7), (2, 9)]
    assert [tokens.mask.sum(1).tolist() for _, tokens in batches] == [[1, 2, 2], [5, 7], [9, 9]]


def test_a_batch_size_below_one_is_refused(encoder):
    with pytest.raises(SentenceEncoderError, match="batch_size is 0"):
        encoder.encode(["a"], 0)


def test_layers_run_in_parts_give_the_whole(encoder):
    ids, mask = encoder.tokenize(TEXTS)
    hidden = encoder.embed_tokens(ids)
    middle = encoder.layers_from(hidden, mask, 0, 1)
    torch.testing.assert_close(encoder.layers_from(middle, mask, 1), encoder.layers_from(hidden, mask))
    assert encoder.layers_from(hidden, mask, 2) is hidden


def test_plain_attention_gives_the_vectors_of_the_fused_one_and_one_map_a_layer(encoder):
    ids, mask = encoder.tokenize(TEXTS)
    hidden = encoder.embed_tokens(ids)
    fused = encoder.layers_from(hidden, mask)
    plain, maps = encoder.layers_from(hidden, mask, attentions=True)
    torch.testing.assert_close(plain[mask], fused[mask], atol=1e-6, rtol=1e-5)
    assert [each.shape for each in maps] == [(len(TEXTS), 4, ids.shape[1], ids.shape[1])] * 2
    assert maps[0].masked_select(~mask[:, None, None, :]).abs().max() == 0


def test_pooling_is_the_mean_over_tokens_only(encoder):
    hidden = torch.randn(2, 3, 32)
    mask = torch.tensor([[True, True, False], [True, True, True]])
    expected = torch.stack([hidden[0, :2].mean(0), hidden[1].mean(0)])
    torch.testing.assert_close(encoder.pool(hidden, mask), expected)
    torch.testing.assert_close(encoder.pool(hidden, None)[1], expected[1])


def test_files_in_the_hubs_layout_and_as_a_data_set_give_the_same_encoder(encoder, tmp_path):
    plain, table = tmp_path / "plain", tmp_path / "table"
    plain.mkdir()
    table.mkdir()
    save_sentence_encoder(plain, encoder)
    from_files({name: plain / name for name in FILES}, table)
    for directory in (plain, table):
        loaded = load_sentence_encoder(directory)
        assert loaded.config == encoder.config
        assert not loaded.training
        assert not any(parameter.requires_grad for parameter in loaded.parameters())
        assert torch.equal(loaded.encode(TEXTS), encoder.encode(TEXTS))


def test_padding_and_truncation_of_the_tokenizers_file_are_switched_off(encoder, tmp_path):
    save_sentence_encoder(tmp_path, encoder)
    described = json.loads((tmp_path / "tokenizer.json").read_text())
    described["truncation"] = {"max_length": 3, "strategy": "LongestFirst", "stride": 0, "direction": "Right"}
    (tmp_path / "tokenizer.json").write_text(json.dumps(described))
    assert load_sentence_encoder(tmp_path).token_ids(["a b c d e"]) == encoder.token_ids(["a b c d e"])


def _change(file: str, **values):
    def change(directory: Path) -> None:
        described = json.loads((directory / file).read_text())
        (directory / file).write_text(json.dumps(described | values))

    return change


@pytest.mark.parametrize(
    "damage, message",
    [
        (_change("config.json", hidden_act="relu"), "hidden_act is 'relu'; only 'gelu'"),
        (_change("config.json", num_hidden_layers=3), "does not hold the tensors of config.json"),
        (_change("config.json", num_hidden_layers=1), "belongs to no layer of 1"),
        (_change("config.json", vocab_size=99), "the files do not belong together"),
        (_change("1_Pooling/config.json", pooling_mode_cls_token=True), "only the mean over tokens"),
        (lambda directory: (directory / "tokenizer.json").write_text("{}"), "is no tokenizer"),
        (lambda directory: (directory / "config.json").write_text("{"), "is not JSON"),
        (lambda directory: (directory / "model.safetensors").write_bytes(b"cut"), "does not hold the tensors"),
    ],
)
def test_other_encoders_and_damaged_files_are_refused(encoder, tmp_path, damage, message):
    save_sentence_encoder(tmp_path, encoder)
    damage(tmp_path)
    with pytest.raises(SentenceEncoderError, match=message):
        load_sentence_encoder(tmp_path)


def test_a_missing_file_is_named(encoder, tmp_path):
    save_sentence_encoder(tmp_path, encoder)
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(DataError, match=r"lacks tokenizer\.json"):
        load_sentence_encoder(tmp_path)
    with pytest.raises(MissingTable, match="dvc repro data-nothing"):
        load_sentence_encoder(tmp_path / "nothing")


def test_drawing_the_layers_anew_leaves_the_embeddings(tmp_path):
    encoder = random_sentence_encoder(PIECES)
    word, layer = encoder.embeddings.word.weight.clone(), encoder.layers[0].mlp_input.weight.clone()
    redraw(encoder.layers, seed=1)
    assert torch.equal(encoder.embeddings.word.weight, word)
    assert not torch.equal(encoder.layers[0].mlp_input.weight, layer)
    assert encoder.layers[0].mlp_input.weight.std().item() == pytest.approx(0.02, rel=0.05)
    again = random_sentence_encoder(PIECES)
    redraw(again.layers, seed=1)
    assert torch.equal(again.layers[0].mlp_input.weight, encoder.layers[0].mlp_input.weight)


@pytest.mark.skipif(not PUBLISHED.is_dir(), reason="needs data/all-minilm-l6-v2")
def test_the_published_model_gives_the_vectors_of_the_reference_implementation():
    encoder = load_sentence_encoder(PUBLISHED)
    texts = [
        "A man is playing a guitar.",
        "Someone plays an instrument on stage, doesn't he?",
        "Ünïcode [CLS] tokens & 日本",
        "",
        "satisfy " * 300,
    ]
    vectors = encoder.encode(texts)
    # transformers 4.57.1 (BertModel in float32) with the mean over unmasked tokens, scaled to unit length.
    expected = [
        [0.021664, -0.004864, -0.009649, -0.063401, -0.167494, 0.004676],
        [0.101717, -0.006267, 0.019015, -0.108509, -0.14388, -0.006252],
        [-0.065351, -0.011861, 0.057141, -0.033848, -0.053513, 0.02092],
        [-0.118838, 0.048299, -0.002548, -0.011011, 0.051951, 0.010292],
        [-0.022404, -0.018643, -0.023501, 0.012884, -0.169637, -0.026947],
    ]
    torch.testing.assert_close(vectors[:, :6], torch.tensor(expected), atol=2e-6, rtol=0)
    cosines = [0.43702, -0.096347, 0.00085520, 0.077692]
    torch.testing.assert_close(vectors[0] @ vectors[1:].T, torch.tensor(cosines), atol=2e-6, rtol=0)
    assert sum(parameter.numel() for parameter in encoder.parameters()) == 22_713_216 - 384 * 385
