"""Encoders that read fewer tokens behind every block."""

import pytest
import torch

from components.compression.merging import encoder as encoders
from components.compression.merging.attention_energy import AttentionEnergy
from components.compression.merging.encoder import reduced
from components.compression.merging.pitome import PiToMe
from components.compression.merging.pitome_bsm import PiToMeBipartite
from components.compression.merging.plan import Depth, MergeError, MergePlan, to_remove
from components.compression.merging.random_pairs import RandomPairs
from components.compression.merging.tofu import ToFu
from components.compression.merging.tome import ToMe
from components.nn.attention_map import attention_map
from components.nn.conv_stem_vit import ConvStemViT
from components.nn.vit import PatchViT

METHODS = [PiToMe(), PiToMe(split="random"), PiToMeBipartite(), ToMe(), ToFu(), RandomPairs(), AttentionEnergy()]


def patch_vit(**changes) -> PatchViT:
    torch.manual_seed(0)
    sizes = {"image_side": 24, "patch_size": 4, "width": 16, "layers": 4, "heads": 2}
    return PatchViT(**{**sizes, **changes}).eval()


def images(count: int = 3) -> torch.Tensor:
    return torch.rand(count, 3, 24, 24, generator=torch.Generator().manual_seed(1))


class Recording:
    """A method that notes what it is asked."""

    needs_attention = True

    def __init__(self) -> None:
        self.asked: list[tuple[torch.Tensor, int, Depth]] = []

    def plan(self, metric: torch.Tensor, count: int, depth: Depth) -> MergePlan:
        self.asked.append((metric, count, depth))
        return ToMe().plan(metric, count, depth)


@torch.no_grad()
@pytest.mark.parametrize("method", METHODS, ids=lambda method: type(method).__name__)
def test_every_block_loses_exactly_its_share_and_the_class_token_stays_first(method):
    model = patch_vit()
    model.class_token.data.fill_(5.0)
    found = reduced(model, images(), method, [0.8] * 4, generator=torch.Generator().manual_seed(0))
    counts, left = [], 36
    for _ in range(4):
        left -= to_remove(left, 0.8)
        counts.append(left)
    assert [step.plan.kept.shape[1] for step in found.steps] == counts
    assert found.tokens.shape == (3, 1 + left, 16)
    assert (found.sizes[:, 0] == 1).all()
    if not isinstance(method, ToFu):
        assert (found.sizes.sum(1) == 37).all()
        ends = found.groups(36)
        for row in range(3):
            assert ends[row].bincount(minlength=left).tolist() == found.sizes[row, 1:].tolist()
        assert (ends.gather(1, found.places(36)) == torch.arange(left)).all()


@torch.no_grad()
@pytest.mark.parametrize("method", [None, *METHODS], ids=lambda method: type(method).__name__)
def test_nothing_changes_where_every_token_is_kept(method):
    model = patch_vit()
    found = reduced(model, images(), method, [1.0] * 4)
    assert torch.equal(model.norm(found.tokens), model(images()))
    assert found.sizes is None
    assert torch.equal(found.groups(36), torch.arange(36).expand(3, -1))
    fewer = reduced(model, images(), method, [1.0] * 3)
    assert torch.equal(fewer.tokens, model.hidden(images(), 3))


@torch.no_grad()
def test_a_classifier_with_a_convolutional_stem_is_reduced_the_same_way():
    torch.manual_seed(0)
    model = ConvStemViT(image_side=24, channels=[4, 6, 8], width=8, layers=3, heads=2, classes=5).eval()
    whole = reduced(model, images(), None, [1.0] * 3)
    assert torch.equal(model.logits(model.norm(whole.tokens)), model(images()))
    found = reduced(model, images(), PiToMe(), [0.9] * 3)
    assert model.logits(model.norm(found.tokens)).shape == (3, 5)


@torch.no_grad()
def test_the_metric_is_the_mean_key_of_the_patches_and_the_attention_that_of_the_class_token():
    model = patch_vit()
    method = Recording()
    reduced(model, images(), method, [0.9, 1.0, 0.8, 1.0])
    metric, count, depth = method.asked[0]
    keys = model.blocks[0].attention.project(model.blocks[0].attention_norm(model.embed(images())))[0]
    assert torch.equal(metric, keys.mean(1)[:, 1:])
    assert (count, depth.layer, depth.layers) == (3, 0, 4)
    wanted = attention_map(model.blocks[0], model.embed(images()))[:, :, 0, 1:].mean(1)
    torch.testing.assert_close(depth.attention, wanted)
    assert [(asked[1], asked[2].layer) for asked in method.asked] == [(3, 0), (6, 2)]


@torch.no_grad()
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-15), (torch.float32, 1e-6)])
def test_a_token_of_size_k_is_attended_to_like_k_copies(dtype, bound):
    model = patch_vit().to(dtype)
    block = model.blocks[0]
    tokens = torch.randn(1, 6, 16, generator=torch.Generator().manual_seed(0), dtype=dtype)
    copies = torch.cat([tokens, tokens[:, 3:4].expand(-1, 2, -1)], 1)
    sizes = torch.tensor([[1, 1, 1, 3, 1, 1]], dtype=dtype)
    one, _, _ = encoders._attend(block, tokens, sizes)
    many, _, _ = encoders._attend(block, copies, None)
    assert float((one - many[:, :6]).abs().max()) < bound
    # It is another thing than one token of the kind.
    single, _, _ = encoders._attend(block, tokens, None)
    assert float((one - single).abs().max()) > 1e-4


@torch.no_grad()
def test_tokens_are_reduced_between_attention_and_mlp():
    model = patch_vit(layers=1)
    found = reduced(model, images(), ToMe(), [0.75])
    block = model.blocks[0]
    attended, _, _ = encoders._attend(block, model.embed(images()), None)
    kept = attended[:, 1:].gather(1, found.steps[0].plan.kept[..., None].expand(-1, -1, 16))
    untouched = found.sizes[:, 1:] == 1
    after = kept + block.mlp(block.mlp_norm(kept))
    torch.testing.assert_close(found.tokens[:, 1:][untouched], after[untouched])


@torch.no_grad()
def test_images_of_a_batch_do_not_see_one_another():
    model = patch_vit()
    together = reduced(model, images(), PiToMe(), [0.8] * 4).tokens
    apart = torch.cat([reduced(model, image[None], PiToMe(), [0.8] * 4).tokens for image in images()])
    torch.testing.assert_close(together, apart, rtol=0, atol=1e-5)


def test_what_does_not_fit_is_refused():
    model = patch_vit()
    with pytest.raises(MergeError, match="5 ratios were given for 4 blocks"):
        reduced(model, images(), ToMe(), [1.0] * 5)
    with pytest.raises(MergeError, match="no method was given"):
        reduced(model, images(), None, [0.9])
