"""Channel groups: independent, and nothing but the base quantizer where there is one."""

import pytest
import torch

from components.quantizers.bsq import BinarySphericalQuantizer
from components.quantizers.channel_split import ChannelSplitQuantizer
from components.quantizers.euclidean_vq import EuclideanQuantizer
from components.quantizers.fsq import FiniteScalarQuantizer
from components.quantizers.lfq import LookupFreeQuantizer


def generator(seed=0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


BASES = {
    "fsq": lambda: FiniteScalarQuantizer([8, 5, 5, 5]),
    "lfq": lambda: LookupFreeQuantizer(4, entropy_temperature=1.0),
    "vq": lambda: EuclideanQuantizer(8, 4),
    "bsq": lambda: BinarySphericalQuantizer(4),
}


@pytest.fixture(params=BASES.values(), ids=BASES.keys())
def base(request):
    torch.manual_seed(0)
    return request.param()


def test_one_group_is_the_base_quantizer(base):
    vectors = torch.randn(10, 4, generator=generator())
    one, other = ChannelSplitQuantizer(base, 1)(vectors), base(vectors)
    assert torch.equal(one.indices.squeeze(-1), other.indices)
    assert torch.equal(one.values, other.values)
    assert torch.equal(one.loss, other.loss)


def test_changing_one_group_changes_its_index_alone(base):
    quantizer = ChannelSplitQuantizer(base, 3)
    vectors = torch.randn(50, 12, generator=generator())
    changed = vectors.clone()
    changed[:, 4:8] = torch.randn(50, 4, generator=generator(1))
    before, after = quantizer(vectors).indices, quantizer(changed).indices
    assert torch.equal(before[:, [0, 2]], after[:, [0, 2]])
    assert not torch.equal(before[:, 1], after[:, 1])


def test_for_levels_per_dimension_the_split_changes_no_value():
    wide, split = FiniteScalarQuantizer([5, 3] * 3), ChannelSplitQuantizer(FiniteScalarQuantizer([5, 3]), 3)
    vectors = torch.randn(50, 6, generator=generator())
    assert torch.equal(wide(vectors).values, split(vectors).values)
    assert wide.bits_per_vector == pytest.approx(split.bits_per_vector)


def test_groups_learn_codes_of_their_own_from_the_first_batch():
    torch.manual_seed(0)
    quantizer = ChannelSplitQuantizer(EuclideanQuantizer(8, 2), 2)
    assert torch.equal(quantizer.parts[0].codebook.weight, quantizer.parts[1].codebook.weight)
    vectors = torch.randn(100, 4, generator=generator()) + torch.tensor([0.0, 0.0, 9.0, 9.0])
    quantizer.start_from(vectors, generator())
    assert float(quantizer.parts[0].codebook.weight.detach().mean()) < 2
    assert float(quantizer.parts[1].codebook.weight.detach().mean()) > 7
