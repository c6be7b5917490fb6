"""What the recipes of residual speech codecs share: their data, their description, the rates they are measured at."""

from __future__ import annotations

from typing import Any

from components.bases import specification
from components.data.speech import Speech, read_speech
from flows.studies.bases.utterances import DIGITS, SENTENCES, speech_folder
from flows.studies.context import StageContext


def training_speech(stage: StageContext) -> list[Speech]:
    """Return the training utterances of each data set of speech that the base reads."""
    return [
        read_speech(speech_folder(stage, name), "train", stage.params.train_utterances)
        for name in (DIGITS, SENTENCES)
        if f"data/{name}" in stage.inputs
    ]


def described(module: str, params: Any) -> dict[str, Any]:
    """Describe the codec that a module of `components.tokenizers.audio` builds, with residual codes."""
    return specification(
        module,
        quantizer=specification(
            "components.quantizers.rvq",
            codebook_size=params.codebook_size,
            code_dim=params.code_dim,
            codebooks=params.codebooks,
            commitment_weight=params.commitment_weight,
            code_ema_decay=params.code_ema_decay,
            restart_every=params.restart_every,
            restart_below=params.restart_below,
        ),
        width=params.width,
        blocks=params.blocks,
        drop="powers_of_two",
    )


def rates(codebooks: int) -> list[int]:
    """Return the numbers of codebooks that are measured: powers of two, and all."""
    return sorted({min(1 << exponent, codebooks) for exponent in range(codebooks.bit_length() + 1)})
