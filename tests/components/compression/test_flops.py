import pytest
import torch

from components.compression.flops import block_flops, counted
from components.compression.merging.encoder import reduced
from components.compression.merging.pitome import PiToMe
from components.compression.merging.random_pairs import RandomPairs
from components.compression.merging.tome import ToMe
from components.nn.vit import PatchViT


def model() -> tuple[PatchViT, torch.Tensor]:
    torch.manual_seed(0)
    return PatchViT(image_side=24, patch_size=4, width=16, layers=3, heads=2).eval(), torch.rand(1, 3, 24, 24)


def test_a_matrix_product_counts_two_operations_a_term():
    assert counted(lambda: torch.rand(3, 4) @ torch.rand(4, 5)) == 2 * 3 * 4 * 5


@pytest.mark.parametrize(
    ("method", "pairs"),
    [
        (RandomPairs(), lambda tokens, count: 0),
        (PiToMe(), lambda tokens, count: tokens**2 + count**2),
        (ToMe(), lambda tokens, count: (tokens // 2) * (tokens - tokens // 2)),
    ],
    ids=["random", "pitome", "tome"],
)
def test_what_is_counted_is_the_closed_form(method, pairs):
    encoder, image = model()
    start = counted(lambda: encoder.embed(image))
    generator = torch.Generator().manual_seed(0)
    found = counted(lambda: reduced(encoder, image, method, [0.9, 1.0, 0.5], generator=generator)) - start
    # 36 patches lose 3, none, and 16 of 33.
    blocks = block_flops([37, 34, 34, 18], 16, 64)
    merging = 2 * 8 * (pairs(36, 3) + pairs(33, 16))
    assert found == blocks + merging


def test_the_unreduced_network_costs_the_papers_formula():
    # 4 N C^2 + 2 N^2 C + 8 N C^2 multiplications for a block whose MLP is four times as wide.
    assert block_flops([65, 65], 96, 384) == 2 * (12 * 65 * 96**2 + 2 * 65**2 * 96)
