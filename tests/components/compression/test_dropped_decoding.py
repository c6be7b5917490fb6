"""Decoding with shorter caches against one masked pass without a cache, token by token."""

import pytest
import torch
from small_vlm import LAYERS, WORDS, small_vlm, visual_tokens

from components.compression import layer_drop
from components.compression.dropped_decoding import DroppingDecoder, _texts
from components.compression.layer_drop import DropError, DropRule
from components.nn.transformer import TransformerError

NEVER = DropRule((LAYERS,))
MODEL = small_vlm()
QUESTION = torch.tensor(
    [[WORDS.question, *WORDS.encode(text)] for text in ("is it red?", "what is it?")], dtype=torch.int64
)
FOLLOWING = torch.tensor([WORDS.encode("yes a red the"), WORDS.encode("blue is it no")])
PLACES = torch.tensor([[1, 4, 5, 9], [2, 3, 8, 9]])


def masked(rows: torch.Tensor, layers: list[int]) -> torch.Tensor:
    """Logits behind the last word of each row, (B, V): one pass without a cache, a mask for each layer."""
    logits = []
    for row, layer in enumerate(layers):
        text = _texts(rows[row : row + 1])
        visual = visual_tokens(MODEL, 4)[row : row + 1]
        prepared = MODEL.prepare(visual, text, places=PLACES[row], text_place=10)
        logits.append(MODEL.predicted(layer_drop.read(MODEL, prepared, text, DropRule((layer,))).states, text))
    return torch.cat(logits)


def decoder(rule: DropRule | None, steps: int = 4) -> DroppingDecoder:
    return DroppingDecoder(MODEL, visual_tokens(MODEL, 4), QUESTION, rule, places=PLACES, text_place=10, steps=steps)


@pytest.fixture(scope="module")
def split() -> DropRule:
    """A rule by which the two sequences part: one drops at layer 1, the other later or never."""
    text = _texts(QUESTION)
    prepared = MODEL.prepare(visual_tokens(MODEL, 4), text, places=PLACES, text_place=10)
    with torch.no_grad():
        shares = layer_drop.migrations(MODEL, prepared, text)[1].text_to_visual
    assert abs(float(shares[0] - shares[1])) > 1e-3
    return DropRule((1, 3), float(shares.mean()))


@pytest.mark.parametrize("layer", [*range(LAYERS + 1), "split", "never"])
@torch.no_grad()
def test_cached_decoding_after_a_drop_is_the_masked_pass_without_a_cache(layer, split):
    rule = {"split": split, "never": None}.get(layer, None if isinstance(layer, str) else DropRule((layer,)))
    decoding = decoder(rule)
    layers = decoding.layers.tolist()
    if layer == "split":
        assert layers[0] != layers[1]
    torch.testing.assert_close(decoding.logits, masked(QUESTION, layers), rtol=1e-4, atol=1e-4)
    written = QUESTION
    for following in FOLLOWING.unbind(1):
        logits = decoding.step(following)
        written = torch.cat([written, following[:, None]], 1)
        torch.testing.assert_close(logits, masked(written, layers), rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_the_decision_of_prefill_is_that_of_packed_reading(split):
    text = _texts(QUESTION)
    prepared = MODEL.prepare(visual_tokens(MODEL, 4), text, places=PLACES, text_place=10)
    assert torch.equal(decoder(split).layers, layer_drop.read(MODEL, prepared, text, split).layers)


@torch.no_grad()
def test_dropped_tokens_are_gone_from_the_caches_of_their_layers(split):
    decoding = decoder(split)
    decoding.step(FOLLOWING[:, 0])
    whole, text = 1 + 4 + 5 + 1, 1 + 5 + 1
    expected = [[whole if layer < own else text for layer in range(LAYERS)] for own in decoding.layers.tolist()]
    assert decoding.cached_tokens().tolist() == expected
    assert decoder(NEVER).cached_tokens().tolist() == [[10] * LAYERS] * 2


def test_more_steps_than_asked_for_and_layers_that_do_not_exist_are_refused():
    decoding = decoder(None, steps=1)
    decoding.step(FOLLOWING[:, 0])
    with pytest.raises(TransformerError, match="make it larger"):
        decoding.step(FOLLOWING[:, 1])
    with pytest.raises(DropError, match="expected some of 0 to"):
        decoder(DropRule((LAYERS + 1,)))
