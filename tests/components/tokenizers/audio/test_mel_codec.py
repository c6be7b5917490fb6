"""The mel codec: frames at half the rate, in the scale of its training frames, whatever their number."""

import pytest
import torch

from components.quantizers.rvq import ResidualQuantizer
from components.tokenizers.audio.codec import CodecError
from components.tokenizers.audio.mel_codec import MelCodec


@pytest.fixture
def codec():
    torch.manual_seed(0)
    return MelCodec(quantizer=ResidualQuantizer(8, 4, codebooks=4, code_ema_decay=0.9), width=8, blocks=1)


def frames(count, length, seed=0):
    return 2 * torch.randn(count, length, 40, generator=torch.Generator().manual_seed(seed)) - 5


def test_two_frames_are_one_vector_and_an_odd_last_one_is_repeated(codec):
    some = frames(2, 21)
    tokens = codec.encode(some)
    assert tokens.shape == (2, 11, 4)
    assert codec.decode(tokens[..., :2]).shape == (2, 22, 40)
    assert torch.equal(codec.encode(torch.cat([some, some[:, -1:]], 1)), tokens)
    assert codec.bits_per_second() == 50 * 4 * 3
    with pytest.raises(CodecError, match="expected \\(B, T, 40\\)"):
        codec.encode(torch.zeros(2, 5, 41))


def test_the_rate_of_the_papers_codec_is_1200_bits_a_second():
    assert MelCodec(quantizer=ResidualQuantizer(64, 4, codebooks=4), width=8, blocks=1).bits_per_second() == 1_200


def test_scale_is_that_of_the_training_frames_and_errors_are_in_it(codec):
    some = frames(3, 50)
    codec.fit_scale(some)
    scaled = codec.scaled(some).flatten(0, 1)
    torch.testing.assert_close(scaled.mean(0), torch.zeros(40), atol=1e-4, rtol=0)
    torch.testing.assert_close(scaled.std(0), torch.ones(40))
    absolute, squared = codec.errors(some + 2 * codec.deviation, some)
    assert float(absolute) == pytest.approx(2, rel=1e-4)
    assert float(squared) == pytest.approx(4, rel=1e-4)


def test_what_decodes_is_in_the_units_of_frames(codec):
    some = frames(2, 20)
    codec.fit_scale(some)
    with torch.no_grad():
        result = codec(some, 2)
        torch.testing.assert_close(result.decoded, codec.decode(codec.encode(some)[..., :2]))
        plain = codec.upsample(codec.decoder(result.codes.values))
        torch.testing.assert_close(result.decoded, plain * codec.deviation + codec.mean)


def test_one_batch_can_be_learnt(codec):
    ramp = torch.linspace(-1, 1, 20).view(1, 20, 1) * torch.linspace(0.5, 2, 40)
    some = torch.cat([ramp, -ramp]) - 5
    generator = torch.Generator().manual_seed(0)
    codec.fit_scale(some)
    codec.start_from(some, generator)
    optimiser = torch.optim.AdamW(codec.parameters(), 1e-2)
    reached = []
    for step in range(60):
        result = codec(some)
        absolute, squared = codec.errors(result.decoded, some)
        optimiser.zero_grad()
        (absolute + squared + result.codes.loss / 4).backward()
        optimiser.step()
        codec.after_step(step, generator)
        reached.append(float(absolute.detach()))
    assert reached[-1] < 0.4 * reached[0]
