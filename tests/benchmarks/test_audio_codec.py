"""The speech codec on one core: how much faster than speech it encodes, decodes, and decodes in a stream.

The real time factor is seconds of computing over seconds of speech: below 1 keeps up. The codec has the sizes of the
shared base (eight codebooks of 256), its weights are random: time does not depend on them.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import pytest
import torch

from components.quantizers.rvq import ResidualQuantizer
from components.tokenizers.audio.codec import SAMPLE_RATE, SpeechCodec

pytestmark = pytest.mark.benchmark_bar

SECONDS = 60
MOST_SECONDS_TO_ENCODE = 3.0
MOST_REAL_TIME = 0.1  # of decoding at once
MOST_STREAMED_REAL_TIME = 0.5  # of decoding in chunks of 200 ms, each with its context
CHUNK = 10  # vectors
ROUNDS = 5


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def codec():
    torch.manual_seed(0)
    quantizer = ResidualQuantizer(256, 64, codebooks=8, code_ema_decay=0.99, restart_every=100, restart_below=2)
    return SpeechCodec(quantizer=quantizer).eval()


@pytest.fixture(scope="module")
def minute():
    return 0.1 * torch.randn(1, SECONDS * SAMPLE_RATE, generator=torch.Generator().manual_seed(0))


def seconds_of(benchmark, run: Callable[[], object]) -> float:
    """Run a few times after a warm-up, record it, and return the median."""
    times = []

    def timed() -> None:
        began = time.perf_counter()
        run()
        times.append(time.perf_counter() - began)

    with torch.inference_mode():
        benchmark.pedantic(timed, rounds=ROUNDS, warmup_rounds=1)
    median = statistics.median(times[1:])
    benchmark.extra_info["real_time_factor"] = median / SECONDS
    return median


def test_a_minute_is_encoded_in_three_seconds(benchmark, codec, minute):
    assert seconds_of(benchmark, lambda: codec.encode(minute)) <= MOST_SECONDS_TO_ENCODE


def test_decoding_is_ten_times_faster_than_speech(benchmark, codec, minute):
    with torch.inference_mode():
        tokens = codec.encode(minute)
    assert seconds_of(benchmark, lambda: codec.decode(tokens)) <= MOST_REAL_TIME * SECONDS


def test_decoding_in_a_stream_keeps_up_twice_over(benchmark, codec, minute):
    with torch.inference_mode():
        values = codec.values(codec.encode(minute))

    def stream() -> None:
        decoder = codec.stream()
        for chunk in values.split(CHUNK, 1):
            decoder.push(chunk)
        decoder.finish()

    assert seconds_of(benchmark, stream) <= MOST_STREAMED_REAL_TIME * SECONDS
