"""The speech synthesiser espeak-ng, with the times of words and phonemes.

The library keeps state between sentences (oscillator phases, random draws of breath and flutter), so every
`Synthesiser` loads a copy of its own and seeds it: what it says depends on nothing but what it was asked for before.
The arithmetic of its oscillators is floating point, so another processor or C library may round a sample otherwise.

Letters: `S` samples.

Source: espeak-ng 1.52, speak_lib.h (synthesis to a callback, events of words and phonemes).
"""

from __future__ import annotations

import _ctypes
import ctypes
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.signal import resample_poly

from components.data.errors import DataError
from components.data.speech import FULL_SCALE, SAMPLE_RATE

_RETRIEVAL, _PHONEME_EVENTS, _DONT_EXIT = 2, 0x0001, 0x8000
_RATE, _PITCH = 1, 3
_CHARACTERS, _UTF8 = 1, 1
_LIST_END, _WORD, _PHONEME = 0, 1, 7
_NATIVE_RATE = 22_050


class EspeakError(DataError):
    """The synthesiser is not there, or refuses a voice."""


class _Identifier(ctypes.Union):
    _fields_ = (("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8))


class _Event(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _Identifier),
    )


_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))


@dataclass(frozen=True)
class Spoken:
    """What the synthesiser said, at 8 kHz.

    Attributes:
        samples: int16 (S,).
        words: Word, first sample, end.
        phonemes: Symbol of espeak, first sample, end; without pauses.
    """

    samples: np.ndarray
    words: list[tuple[str, int, int]]
    phonemes: list[tuple[str, int, int]]


class Synthesiser:
    """A copy of the library; close it, or use it in a `with` block.

    Raises:
        EspeakError: The package `espeakng-loader` is not installed, or has no library for this machine.
    """

    def __init__(self) -> None:
        try:
            import espeakng_loader

            library, data = espeakng_loader.get_library_path(), espeakng_loader.get_data_path()
            with tempfile.TemporaryDirectory() as folder:
                # Another file gives another copy of the library's variables.
                copy = shutil.copy(library, Path(folder, Path(library).name))
                self._library = ctypes.CDLL(copy)
        except (ImportError, OSError, RuntimeError) as error:
            raise EspeakError(
                f"espeak-ng cannot be loaded ({error}). Install the package espeakng-loader, or set TESSERA_MIRROR to "
                "a folder that holds the finished table."
            ) from error
        rate = self._library.espeak_Initialize(_RETRIEVAL, 0, data.encode(), _PHONEME_EVENTS | _DONT_EXIT)
        if rate != _NATIVE_RATE:
            raise EspeakError(f"espeak-ng started with a sample rate of {rate}; expected {_NATIVE_RATE} Hz.")
        self._library.espeak_ng_SetRandSeed.argtypes = (ctypes.c_long,)
        self._library.espeak_ng_SetRandSeed(1)
        self._parts: list[bytes] = []
        self._events: list[tuple[int, int, int, bytes]] = []
        self._callback = _Callback(self._receive)
        self._library.espeak_SetSynthCallback(self._callback)

    def __enter__(self) -> Synthesiser:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Unload the library."""
        if self._library is not None:
            self._library.espeak_Terminate()
            _ctypes.dlclose(self._library._handle)
            self._library = None

    def say(self, text: str, voice: str, rate: int, pitch: int) -> Spoken:
        """Synthesise a sentence.

        Args:
            text: Words separated by single blanks.
            voice: Name of an accent, and a variant after "+", such as `en-us+f2`.
            rate: Words per minute.
            pitch: 0 to 100.

        Raises:
            EspeakError: The voice is unknown, or nothing is said.
        """
        if self._library.espeak_SetVoiceByName(voice.encode()):
            raise EspeakError(f"espeak-ng has no voice {voice!r}; expected an accent such as en-us, and +variant.")
        self._library.espeak_SetParameter(_RATE, rate, 0)
        self._library.espeak_SetParameter(_PITCH, pitch, 0)
        self._parts.clear()
        self._events.clear()
        content = text.encode()
        self._library.espeak_Synth(content, len(content) + 1, 0, _CHARACTERS, 0, _UTF8, None, None)
        native = np.frombuffer(b"".join(self._parts), np.int16)
        if not len(native):
            raise EspeakError(f"espeak-ng said nothing for {text!r}; expected words.")
        samples = resample_poly(native.astype(np.float64), *_ratio())
        samples = np.clip(np.rint(samples), -FULL_SCALE, FULL_SCALE - 1).astype(np.int16)
        marks = [(*event[:2], _at_8k(event[2], len(samples)), event[3]) for event in self._events]
        return Spoken(samples, _words(text, marks, len(samples)), _phonemes(marks, len(samples)))

    def _receive(self, samples, count: int, events) -> int:
        if count > 0:
            self._parts.append(ctypes.string_at(samples, 2 * count))
        place = 0
        while events[place].type != _LIST_END:
            event = events[place]
            if event.type in (_WORD, _PHONEME):
                name = event.id.string if event.type == _PHONEME else b""
                self._events.append((event.type, event.text_position, event.sample, name))
            place += 1
        return 0


def _ratio() -> tuple[int, int]:
    common = np.gcd(SAMPLE_RATE, _NATIVE_RATE)
    return int(SAMPLE_RATE // common), int(_NATIVE_RATE // common)


def _at_8k(sample: int, end: int) -> int:
    return min(round(sample * SAMPLE_RATE / _NATIVE_RATE), end)


def _phonemes(marks: list[tuple[int, int, int, bytes]], end: int) -> list[tuple[str, int, int]]:
    heard = [(name.decode(), sample) for kind, _, sample, name in marks if kind == _PHONEME]
    stops = [sample for _, sample in heard[1:]] + [end]
    return [
        (name, start, stop)
        for (name, start), stop in zip(heard, stops, strict=True)
        if not name.startswith("_") and stop > start
    ]


def _words(text: str, marks: list[tuple[int, int, int, bytes]], end: int) -> list[tuple[str, int, int]]:
    """Return every word's span: from its event to the next one's, the last until the closing pause.

    Common pairs such as "of the" are one entry of espeak's dictionary and have one event; their span is divided in
    proportion to letters.
    """
    words = text.split(" ")
    firsts = np.cumsum([0, *(len(word) + 1 for word in words[:-1])])
    begun = {position - 1: sample for kind, position, sample, _ in reversed(marks) if kind == _WORD}
    voiced = _phonemes(marks, end)
    stop = voiced[-1][2] if voiced else end
    groups: list[list[int]] = []
    for word, first in enumerate(firsts.tolist()):
        if first in begun or not groups:
            groups.append([])
        groups[-1].append(word)
    starts = [begun.get(int(firsts[group[0]]), 0) for group in groups]
    spans = []
    for group, start, after in zip(groups, starts, [*starts[1:], stop], strict=True):
        letters = np.cumsum([0, *(len(words[word]) for word in group)])
        edges = np.rint(start + (max(after, start) - start) * letters / letters[-1]).astype(int).tolist()
        spans += [(words[word], *edges[place : place + 2]) for place, word in enumerate(group)]
    return spans
