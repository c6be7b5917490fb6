"""The speech codec: rates, coarser codes, subsets of streams, and a stream that equals decoding at once."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from components.audio.spectral_loss import SpectralLoss
from components.quantizers.euclidean_vq import EuclideanQuantizer
from components.quantizers.rvq import ResidualQuantizer
from components.tokenizers.audio.codec import CodecError, SpeechCodec, StreamingDecoder

BOOKS = 3


@pytest.fixture(scope="module")
def codec():
    torch.manual_seed(0)
    quantizer = ResidualQuantizer(16, 8, codebooks=BOOKS, code_ema_decay=0.9)
    model = SpeechCodec(quantizer=quantizer, width=16, blocks=2, drop="powers_of_two")
    waves = waveforms(4, 4_000)
    model.start_from(waves, torch.Generator().manual_seed(0))
    return model.eval()


def waveforms(count, samples, seed=0):
    return 0.1 * torch.randn(count, samples, generator=torch.Generator().manual_seed(seed))


def test_a_vector_stands_for_twenty_milliseconds_and_the_rate_is_its_bits(codec):
    tokens = codec.encode(waveforms(2, 4_001))
    assert tokens.shape == (2, 26, BOOKS)
    assert codec.decode(tokens).shape == (2, 26 * 160)
    assert codec.vectors_per_second == 50
    assert codec.bits_per_second() == 50 * BOOKS * 4
    assert codec.bits_per_second(1) == 200
    full = SpeechCodec(quantizer=ResidualQuantizer(256, 8, codebooks=8), width=8, blocks=1)
    assert [full.bits_per_second(kept) for kept in (2, 4, 8)] == [800, 1_600, 3_200]


@torch.no_grad()
def test_the_way_through_codes_is_the_way_through_values(codec):
    waves = waveforms(2, 3_200)
    for kept in (1, 2, 3):
        result = codec(waves, kept)
        assert result.codes.indices.shape == (2, 20, kept)
        torch.testing.assert_close(result.decoded, codec.decode(codec.encode(waves)[..., :kept]))
        assert result.kept == kept


@torch.no_grad()
def test_any_subset_of_streams_is_the_sum_of_its_codes(codec):
    tokens = codec.encode(waveforms(1, 1_600))
    books = codec.quantizer.codebooks
    values = books[2].weight[tokens[..., 2]] + books[0].weight[tokens[..., 0]]
    torch.testing.assert_close(codec.values(tokens[..., [2, 0]], streams=(2, 0)), values)
    torch.testing.assert_close(codec.decode(tokens[..., [2, 0]], (2, 0)), codec.decode_values(values))
    torch.testing.assert_close(codec.values(tokens, streams=(0, 1, 2)), codec.values(tokens))
    for streams in ((), (0, 0), (3,), (0, 1)):
        with pytest.raises(CodecError, match="different numbers from 0 to 2"):
            codec.values(tokens[..., :1], streams=streams)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(1, 15), min_size=1, max_size=12))
def test_a_stream_in_any_chunks_is_the_waveform_of_decoding_at_once(codec, chunks):
    values = torch.randn(2, sum(chunks), 8, generator=torch.Generator().manual_seed(0))
    stream = codec.stream()
    with torch.no_grad():
        parts = [stream.push(chunk) for chunk in values.split(chunks, 1)] + [stream.finish()]
        torch.testing.assert_close(torch.cat(parts, 1), codec.decode_values(values), atol=1e-5, rtol=1e-4)
    # A stream can be used again.
    with torch.no_grad():
        stream.push(values)
        assert stream.finish().shape[1] > 0


@torch.no_grad()
def test_a_sample_depends_on_no_vector_beyond_the_reach_and_a_shorter_reach_would_not_do(codec):
    values = torch.randn(1, 60, 8, generator=torch.Generator().manual_seed(1))
    other = values.clone()
    other[:, 30] += 1
    changed = (codec.decode_values(values) != codec.decode_values(other)).view(-1, 160).any(1).nonzero().flatten()
    assert changed.min() >= 30 - codec.reach
    assert changed.max() <= 30 + codec.reach
    short = StreamingDecoder(codec.decode_values, codec.reach // 3, 160)
    wrong = torch.cat([short.push(values[:, :30]), short.push(values[:, 30:]), short.finish()], 1)
    assert not torch.allclose(wrong, codec.decode_values(values), atol=1e-5, rtol=1e-4)


def test_dropping_needs_a_residual_quantizer_and_waveforms_are_checked(codec):
    plain = EuclideanQuantizer(16, 8)
    with pytest.raises(CodecError, match="use a residual quantizer"):
        SpeechCodec(quantizer=plain, drop="uniform")
    with pytest.raises(CodecError, match="no streams"):
        SpeechCodec(quantizer=plain, width=8, blocks=1).values(torch.zeros(1, 3, dtype=torch.int64), streams=(0,))
    for waves in (torch.zeros(5), torch.zeros(1, 5, dtype=torch.int16), torch.zeros(1, 0)):
        with pytest.raises(CodecError, match="expected floating-point"):
            codec.latents(waves)
    with pytest.raises(CodecError, match="no vectors"):
        codec.stream().finish()


def test_one_batch_can_be_learnt():
    torch.manual_seed(0)
    quantizer = ResidualQuantizer(16, 8, codebooks=2, code_ema_decay=0.9)
    model = SpeechCodec(quantizer=quantizer, width=24, blocks=1)
    time = torch.arange(4_000) / 8_000
    waves = torch.stack([0.3 * torch.sin(2 * torch.pi * hertz * time) for hertz in (200, 700)])
    generator = torch.Generator().manual_seed(0)
    model.start_from(waves, generator)
    errors, optimiser = SpectralLoss(), torch.optim.AdamW(model.parameters(), 5e-3)
    reached = []
    for step in range(40):
        result = model(waves)
        found = errors(result.decoded, waves, (256,))
        optimiser.zero_grad()
        (15 * found.mel + found.stft + result.codes.loss / 8).backward()
        optimiser.step()
        model.after_step(step, generator)
        reached.append(float(found.mel.detach()))
    assert sum(reached[-3:]) / 3 < 0.5 * reached[0]
