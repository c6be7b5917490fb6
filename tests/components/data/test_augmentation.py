import torch
from hypothesis import given
from hypothesis import strategies as st

from components.data.augmentation import random_crop


@given(st.integers(0, 1000), st.integers(0, 3))
def test_every_image_is_shifted_by_itself_with_zeros_behind(seed, padding):
    images = torch.randint(1, 256, (4, 3, 6, 5), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))
    found = random_crop(images, padding, torch.Generator().manual_seed(seed))
    assert found.shape == images.shape
    assert found.dtype == images.dtype
    for before, after in zip(images, found, strict=True):
        wide = torch.zeros(3, 6 + 2 * padding, 5 + 2 * padding, dtype=torch.uint8)
        wide[:, padding : padding + 6, padding : padding + 5] = before
        places = [
            (top, left)
            for top in range(2 * padding + 1)
            for left in range(2 * padding + 1)
            if torch.equal(wide[:, top : top + 6, left : left + 5], after)
        ]
        assert places


def test_all_shifts_occur_and_images_of_a_batch_differ():
    images = torch.arange(1, 10).view(1, 1, 3, 3).expand(400, -1, -1, -1)
    found = random_crop(images, 1, torch.Generator().manual_seed(0))
    assert len(found.flatten(1).unique(dim=0)) == 9


def test_no_padding_leaves_images_as_they_are():
    images = torch.rand(3, 2, 4, 4)
    assert torch.equal(random_crop(images, 0, torch.Generator()), images)
