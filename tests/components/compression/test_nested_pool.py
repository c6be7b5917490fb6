"""Nested pooling: nestedness, equality at the finest scale, the mean of losses, sequence lengths, the oracle."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from components.compression import pool
from components.compression.nested_pool import check_scales, language_flops, nested, oracle, scaled
from components.compression.pool import PoolError, average_pool
from components.language.causal_lm import CausalLM, CausalLMConfig
from components.multimodal.packed_qa import PackedBatch
from components.multimodal.question_answering import answer_loss
from components.multimodal.vlm import VLM, text_batch
from components.multimodal.words import WordVocabulary

WORDS = WordVocabulary(["?", "is", "it", "red", "yes"])


def model(rows: int = 12) -> VLM:
    torch.manual_seed(0)
    language = CausalLM(CausalLMConfig(len(WORDS), 200, 8, 2, 2, tied=True, positions="rotary", norm="rms"))
    torch.nn.init.normal_(language.embedding.weight, std=1.0)
    return VLM(language=language, words=WORDS.entries, rows=rows, feature_width=3, merge=1, encoder="")


def batch(count: int) -> PackedBatch:
    one = text_batch(WORDS, "is it red?")
    at = one.at + torch.arange(count) * one.tokens.shape[1]
    return PackedBatch(*(part.repeat(count, 1) for part in one[:3]), at, *(part.repeat(count) for part in one[4:]))


def gradients(vlm: VLM, loss: torch.Tensor) -> list[torch.Tensor]:
    return torch.autograd.grad(loss, list(vlm.parameters()), allow_unused=True)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10_000))
def test_coarse_sets_are_functions_of_every_finer_one(seed):
    tokens = torch.randn(2, 144, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    chain = tokens
    for scale in (36, 9, 1):
        chain = average_pool(chain, scale)
        torch.testing.assert_close(chain, average_pool(tokens, scale), rtol=0, atol=1e-6)
    torch.testing.assert_close(chain[:, 0], tokens.mean(1), rtol=0, atol=1e-6)


def test_blocks_are_averaged_in_raster_order():
    tokens = torch.arange(16.0).view(1, 16, 1)
    assert average_pool(tokens, 4).flatten().tolist() == [2.5, 4.5, 10.5, 12.5]
    assert average_pool(tokens, 16) is tokens


def test_the_single_token_is_the_mean_of_all_projected_features():
    vlm, features = model(), torch.randn(2, 144, 3)
    torch.testing.assert_close(scaled(vlm, features, 1)[:, 0], vlm.visual(features).mean(1))


def test_pooling_before_the_projector_differs_unless_nothing_is_pooled():
    vlm, features = model(), torch.randn(2, 144, 3)
    torch.testing.assert_close(scaled(vlm, features, 144, "before"), scaled(vlm, features, 144))
    assert (scaled(vlm, features, 9, "before") - scaled(vlm, features, 9)).abs().max() > 1e-3
    with pytest.raises(PoolError, match="expected 'after' or 'before'"):
        scaled(vlm, features, 9, "beside")


def test_with_the_finest_scale_alone_it_is_the_ordinary_model():
    vlm, features, text = model(), torch.randn(2, 144, 3), batch(2)
    (tokens,) = nested(vlm, features, [144])
    logits, plain = vlm(tokens, text), vlm(vlm.visual(features), text)
    assert torch.equal(logits, plain)
    ours, theirs = (gradients(vlm, answer_loss(each, text)) for each in (logits, plain))
    assert all(torch.equal(one, other) for one, other in zip(ours, theirs, strict=True) if one is not None)


@pytest.mark.parametrize("side", ["after", "before"])
def test_the_loss_is_the_mean_of_separate_losses_in_any_order(side):
    vlm, features, text = model(), torch.randn(2, 144, 3), batch(2)

    def together(scales):
        losses = torch.stack([answer_loss(vlm(tokens, text), text) for tokens in nested(vlm, features, scales, side)])
        return losses.mean()

    alone = [answer_loss(vlm(scaled(vlm, features, scale, side), text), text) for scale in (144, 36, 9, 1)]
    mean = sum(each.item() for each in alone) / 4
    separate = [gradients(vlm, each) for each in alone]
    for order in ((144, 36, 9, 1), (9, 144, 1, 36)):
        loss = together(order)
        assert loss.item() == pytest.approx(mean, abs=1e-5)
        for parts in zip(gradients(vlm, loss), *separate, strict=True):
            if parts[0] is not None:
                torch.testing.assert_close(parts[0], sum(parts[1:]) / 4, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("scale", [144, 36, 9, 1])
def test_the_language_model_reads_exactly_the_scale_and_the_text(scale):
    vlm, text = model(), batch(1)
    prepared = vlm.prepare(scaled(vlm, torch.randn(1, 144, 3), scale), text)
    assert prepared.tokens.shape[1] == 1 + scale + text.tokens.shape[1]
    # The text's first position follows the visual tokens': it moves with the scale.
    torch.testing.assert_close(prepared.angles[:, 0, 0, 1 + scale], vlm.language.angles[:, 1 + scale])


def test_logits_of_a_padded_batch_are_those_of_single_runs():
    vlm, features = model(), torch.randn(2, 144, 3)
    short, long = text_batch(WORDS, "is red?"), text_batch(WORDS, "is it it it red?")
    width = long.tokens.shape[1]

    def padded(part, count):
        return torch.nn.functional.pad(part, (0, count))

    gap = width - short.tokens.shape[1]
    parts = [torch.cat([padded(one, gap), other]) for one, other in zip(short[:3], long[:3], strict=True)]
    both = PackedBatch(*parts, torch.cat([short.at, long.at + width]), *(part.repeat(2) for part in short[4:]))
    with torch.no_grad():
        for scale in (36, 1):
            tokens = scaled(vlm, features, scale)
            alone = torch.cat([vlm(tokens[:1], short), vlm(tokens[1:], long)])
            torch.testing.assert_close(vlm(tokens, both), alone, rtol=1e-4, atol=1e-5)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.lists(st.booleans(), min_size=3, max_size=3), min_size=1, max_size=20), st.permutations([36, 9, 1]))
def test_the_oracle_is_never_worse_than_a_fixed_scale_and_spends_between_the_scales(rows, scales):
    right = torch.tensor(rows).T
    found = oracle(right, scales)
    assert float(found.right.float().mean()) >= max(float(each.float().mean()) for each in right)
    assert ((found.tokens >= 1) & (found.tokens <= 36)).all()
    for question in range(right.shape[1]):
        good = [scale for scale, each in zip(scales, right[:, question].tolist(), strict=True) if each]
        assert int(found.tokens[question]) == (min(good) if good else 1)


def test_where_all_scales_agree_the_oracle_is_each_of_them():
    right = torch.tensor([[True, False, True]]).expand(3, 3)
    found = oracle(right, [36, 9, 1])
    assert found.right.tolist() == [True, False, True]
    assert found.tokens.tolist() == [1, 1, 1]


def test_scales_must_be_nested_squares():
    assert check_scales((36, 9, 1), 36) == (36, 9, 1)
    for scales, message in (((36, 16), "not nested"), ((36, 8), "no square grid"), ((9, 9), "different"), ((), "one")):
        with pytest.raises(PoolError, match=message):
            check_scales(scales, 36)
    with pytest.raises(PoolError, match="cannot be pooled"):
        average_pool(torch.zeros(1, 36, 1), 16)


def test_selections_keep_so_many_tokens_of_the_grid():
    grid = torch.arange(36.0).view(1, 36, 1).expand(3, 36, 1)
    assert pool.kept(grid, pool.uniform(grid, 9))[0].flatten().tolist() == [7, 9, 11, 19, 21, 23, 31, 33, 35]
    assert pool.uniform(grid, 1).tolist() == [21]
    assert pool.kept(grid, pool.sequential(grid, 4))[1].flatten().tolist() == [0, 1, 2, 3]
    drawn = pool.random(grid, 9, torch.Generator().manual_seed(0))
    assert drawn.shape == (3, 9)
    assert (drawn.diff(dim=1) > 0).all()
    assert not torch.equal(drawn[0], drawn[1])
    with pytest.raises(PoolError, match="40 of 36 tokens"):
        pool.sequential(grid, 40)
    with pytest.raises(PoolError, match="no even grid"):
        pool.uniform(grid, 16)


def test_random_selection_is_uniform_over_places():
    drawn = pool.random(torch.zeros(4000, 9, 0), 3, torch.Generator().manual_seed(1))
    shares = torch.bincount(drawn.flatten(), minlength=9) / 4000
    assert (shares - 1 / 3).abs().max() < 0.03


def test_flops_are_those_of_the_matrices_and_the_attention():
    vlm = model()
    matrices = sum(
        parameter.numel()
        for name, parameter in vlm.language.transformer.named_parameters()
        if parameter.dim() == 2 and "norm" not in name
    )
    length = 1 + 9 + 5
    assert language_flops(vlm, 9, 5) == 2 * length * matrices + 2 * 4 * length**2 * 8
