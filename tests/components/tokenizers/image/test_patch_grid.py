import pytest
import torch

from components.errors import TesseraError
from components.quantizers.kmeans import KMeansQuantizer
from components.tokenizers.image.patch_grid import PatchGridTokenizer


def tokenizer(codes=6):
    return PatchGridTokenizer(quantizer=KMeansQuantizer(codes, 12, iterations=20), image_side=4, patch_side=2)


def test_images_made_of_as_many_patches_as_there_are_codes_come_back_exactly():
    generator = torch.Generator().manual_seed(0)
    patches = torch.rand(6, 3, 2, 2, generator=generator)
    named = torch.randint(6, (40, 4), generator=generator)
    rows = patches[named].unflatten(1, (2, 2)).permute(0, 3, 1, 4, 2, 5)
    images = rows.reshape(40, 3, 4, 4)
    model = tokenizer()
    model.start_from(images, generator)
    indices = model.encode(images)
    assert torch.allclose(model.decode(indices), images, atol=1e-6)
    # Codes may be numbered otherwise, but one patch has one code.
    pairs = torch.stack([named.flatten(), indices.flatten()], 1).unique(dim=0)
    assert len(pairs) == 6


def test_cells_run_row_by_row():
    model = tokenizer(2)
    model.quantizer.centres.copy_(torch.tensor([0.0, 1.0]).view(2, 1).expand(2, 12))
    image = torch.zeros(1, 3, 4, 4)
    image[:, :, :2, 2:] = 1
    assert model.encode(image).tolist() == [[0, 1, 0, 0]]


def test_patches_that_do_not_fit_are_refused():
    with pytest.raises(TesseraError, match="divide the side"):
        PatchGridTokenizer(quantizer=KMeansQuantizer(2, 12), image_side=5, patch_side=2)
