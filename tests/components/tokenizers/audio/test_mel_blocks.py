"""The codec of log-mel blocks: its verbs, its scale, and what a quantizer may not change."""

import pytest
import torch

from components.bases import construct, specification
from components.quantizers.euclidean_vq import EuclideanQuantizer
from components.quantizers.rvq import ResidualQuantizer
from components.quantizers.unquantized import Unquantized
from components.tokenizers.audio.mel_blocks import MelBlocksError, MelBlockTokenizer, cut_blocks

R, M = 3, 5


def generator(seed=0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def blocks(count=40, seed=0) -> torch.Tensor:
    return 8 * torch.randn(count, R, M, generator=generator(seed)) - 50 + torch.arange(M)


def codec(quantizer, **options) -> MelBlockTokenizer:
    torch.manual_seed(0)
    model = MelBlockTokenizer(quantizer=quantizer, block_frames=R, bands=M, hidden_width=16, **options)
    model.fit_scale(blocks())
    return model


def test_blocks_are_the_frames_in_order_without_the_rest():
    spectra = torch.arange(14.0 * M).view(14, M)
    cut = cut_blocks(spectra, 4)
    assert cut.shape == (3, 4, M)
    assert torch.equal(cut.flatten(0, 1), spectra[:12])
    assert cut_blocks(spectra[:3], 4).shape == (0, 4, M)


def test_decoded_indices_are_what_the_forward_pass_gives():
    model = codec(ResidualQuantizer(8, 4, codebooks=3)).eval()
    model.start_from(blocks(), generator())
    result = model(blocks(seed=1))
    indices = model.encode(blocks(seed=1))
    assert torch.equal(indices, result.codes.indices)
    assert indices.shape == (40, 3)
    torch.testing.assert_close(model.scaled(model.decode(indices)), result.blocks, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(model.decode(indices), model.decode_values(result.codes.values))


def test_the_scale_makes_every_band_mean_0_and_deviation_1():
    scaled = codec(Unquantized(4)).scaled(blocks()).flatten(0, 1)
    torch.testing.assert_close(scaled.mean(0), torch.zeros(M), atol=1e-5, rtol=0)
    torch.testing.assert_close(scaled.std(0), torch.ones(M), atol=1e-5, rtol=0)


def test_a_band_that_never_changes_stays_finite():
    constant = torch.full((6, R, M), -80.0)
    model = codec(Unquantized(4))
    model.fit_scale(constant)
    assert model.scaled(constant).isfinite().all()


def test_fewer_codebooks_are_the_first_of_them():
    model = codec(ResidualQuantizer(8, 4, codebooks=3), drop="uniform").eval()
    result = model(blocks(), 2)
    assert result.kept == 2
    assert torch.equal(result.codes.indices, model.encode(blocks())[..., :2])
    drawn = {model.draw_step(generator(seed)) for seed in range(40)}
    assert drawn == {1, 2, 3}


def test_blocks_are_coded_alone():
    model = codec(EuclideanQuantizer(8, 4)).eval()
    model.start_from(blocks(), generator())
    single = torch.cat([model.encode(block.unsqueeze(0)) for block in blocks(seed=2)])
    assert torch.equal(model.encode(blocks(seed=2)), single)


def test_it_is_built_from_a_description_on_the_meta_device():
    description = specification(
        "components.tokenizers.audio.mel_blocks",
        quantizer=specification("components.quantizers.fsq", levels=[5, 5, 5]),
    )
    with torch.device("meta"):
        model = construct(description)
    assert model.codebook_size == 125


def test_spectra_of_another_form_and_a_drop_without_prefixes_are_refused():
    with pytest.raises(MelBlocksError, match=r"expected \(..., 3, 5\)"):
        codec(Unquantized(4)).encode(torch.zeros(2, 4, M))
    with pytest.raises(MelBlocksError, match="EuclideanQuantizer has no coarser code"):
        codec(EuclideanQuantizer(8, 4), drop="uniform")
