"""Text to phonemes by the rules and the dictionary of espeak-ng, without any sound.

    the red house  ->  D @ | r 'E d | h 'aU s        a vowel carries the stress of its syllable, | parts words

Source: espeak-ng 1.52, speak_lib.h (espeak_TextToPhonemes, mnemonics with a separator).
"""

from __future__ import annotations

import ctypes

from components.data.espeak import EspeakError, Synthesiser

WORD_END = "|"
_UTF8 = 1
_SEPARATOR = "_"


class Phonetizer(Synthesiser):
    """A synthesiser that is only asked what it would say; close it, or use it in a `with` block.

    Args:
        voice: Accent, such as `en-us`.

    Raises:
        EspeakError: The package is not there, or has no such voice.
    """

    def __init__(self, voice: str = "en-us") -> None:
        super().__init__()
        if self._library.espeak_SetVoiceByName(voice.encode()):
            raise EspeakError(f"espeak-ng has no voice {voice!r}; expected an accent such as en-us.")
        self._phonemes = self._library.espeak_TextToPhonemes
        self._phonemes.restype = ctypes.c_char_p
        self._phonemes.argtypes = (ctypes.POINTER(ctypes.c_char_p), ctypes.c_int, ctypes.c_int)

    def phonemes(self, text: str) -> list[str]:
        """Return the phonemes of a text with WORD_END between words; some pairs of words are said as one.

        Raises:
            EspeakError: Nothing is said.
        """
        rest, words = ctypes.c_char_p(text.encode()), []
        while rest.value:
            said = self._phonemes(ctypes.byref(rest), _UTF8, ord(_SEPARATOR) << 8)
            words += (said or b"").decode().split()
        symbols: list[str] = []
        for word in words:
            parts = [part for part in word.split(_SEPARATOR) if part]
            if parts:
                symbols += [WORD_END, *parts] if symbols else parts
        if not symbols:
            raise EspeakError(f"espeak-ng has no phonemes for {text!r}; expected words.")
        return symbols
