"""JPEG and WebP baselines: payloads against an independent reading of the files, and the best setting of all."""

import io
import struct

import numpy as np
import pytest
import torch
from PIL import Image

from components.compression import image_codecs
from components.compression.image_codecs import CodecError, best_under, encode, jpeg_payload, settings, webp_payload
from components.metrics.image import psnr


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    generator = np.random.default_rng(0)
    rows, columns = np.mgrid[0:96, 0:96] / 96
    smooth = np.stack([rows, columns, (rows + columns) / 2], axis=-1) * 200 + 20
    smooth += 25 * np.sin(columns * 40)[..., None] + generator.normal(0, 8, (96, 96, 3))
    return smooth.clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("chroma", ["4:4:4", "4:2:0"])
@pytest.mark.parametrize("quality", [1, 30, 95])
def test_a_jpeg_file_is_its_payload_its_markers_and_nothing_else(picture, quality, chroma):
    file, payload = encode(Image.fromarray(picture), "jpeg", quality, chroma)
    # A scan holds 0xFF only as a stuffed FF 00; what stands before the last marker segment's end is header.
    start = file.rindex(b"\xff\xda")
    length = struct.unpack(">H", file[start + 2 : start + 4])[0]
    scan = file[start + 2 + length : -2]
    assert payload == len(scan)
    assert file[-2:] == b"\xff\xd9"
    assert all(scan[at + 1] == 0 for at in range(len(scan) - 1) if scan[at] == 0xFF)


def test_jpeg_uses_the_standard_tables_whose_size_does_not_depend_on_the_picture(picture):
    noise = np.random.default_rng(1).integers(0, 256, picture.shape, dtype=np.uint8)
    headers = set()
    for pixels in (picture, noise):
        file, payload = encode(Image.fromarray(pixels), "jpeg", 40, "4:2:0")
        headers.add(file[: len(file) - 2 - payload])
    assert len(headers) == 1


def test_webp_payload_is_the_chunk_without_its_frame_header(picture):
    file, payload = encode(Image.fromarray(picture), "webp", 20, "4:2:0")
    chunk = struct.unpack("<I", file[16:20])[0]
    assert file[20 + 3 : 20 + 6] == b"\x9d\x01\x2a"  # start code inside the ten header bytes
    assert payload == chunk - 10
    assert len(file) - 30 - payload in (0, 1)  # chunks are padded to an even length


@pytest.mark.parametrize("codec", ["jpeg", "webp"])
def test_the_best_setting_is_the_best_of_all_that_fit(picture, codec, monkeypatch):
    budgets = (150, 400, 1200)
    best = best_under(picture, codec, budgets)
    monkeypatch.setattr(image_codecs, "_GIVE_UP_AT", 1000.0)
    every = list(settings(picture, codec, max(budgets)))
    for budget in budgets:
        fitting = [coded.psnr for coded in every if coded.payload <= budget]
        assert best[budget].payload <= budget
        assert best[budget].psnr == max(fitting)
    assert best[150].psnr < best[400].psnr < best[1200].psnr


def test_small_budgets_are_reached_by_downscaling(picture):
    best = best_under(picture, "jpeg", (150, 9000), quality_step=7)
    assert best[150].downscale > 1
    assert best[9000].downscale == 1


@pytest.mark.parametrize("codec", ["jpeg", "webp"])
def test_the_psnr_is_that_of_the_decoded_picture(picture, codec):
    coded = best_under(picture, codec, (500,))[500]
    decoded, original = (torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None] for pixels in (coded.decoded, picture))
    assert float(psnr(decoded, original)) == pytest.approx(coded.psnr, abs=1e-4)


def test_a_budget_that_nothing_fits_is_an_error(picture):
    with pytest.raises(CodecError, match="raise the budget"):
        best_under(picture, "webp", (3,))


def test_files_that_cannot_be_measured_are_refused(picture):
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", progressive=True)
    with pytest.raises(CodecError, match="progressive"):
        jpeg_payload(buffer.getvalue())
    with pytest.raises(CodecError, match="cut off"):
        jpeg_payload(encode(Image.fromarray(picture), "jpeg", 50, "4:4:4")[0][:-5])
    with pytest.raises(CodecError, match="start-of-scan"):
        jpeg_payload(b"\xff\xd8\x00")
    lossless = io.BytesIO()
    Image.fromarray(picture).save(lossless, "WEBP", lossless=True)
    with pytest.raises(CodecError, match="plain lossy"):
        webp_payload(lossless.getvalue())
