"""What merging does to sequences before any model sees them: lengths and how evenly tokens are used."""

from __future__ import annotations

import numpy as np

from components.analysis.normalized_entropy import normalized_entropy
from components.metrics.tables import MetricTable
from components.tokenizers.audio import unit_bpe
from flows.studies.context import StageContext
from flows.studies.speech_task.dau_tokenization.symbols import as_symbols, phrases, stored_units


def evaluate(stage: StageContext) -> None:
    """Write both measures of phonemes, of units, and of units whose runs are kept, for every size of vocabulary."""
    params, table = stage.params, MetricTable()
    spoken, stored = phrases(stage), stored_units(stage)
    kinds = {
        "phonemes": (spoken.train, spoken.size, spoken.separator),
        "units": ([as_symbols(units, True) for units in stored.train], stored.size, None),
        "runs": (stored.train, stored.size, None),
    }
    for name, (sequences, size, separator) in kinds.items():
        symbols = sum(map(len, sequences))
        for vocabulary in (size, *(each for each in params.swept if each > size)):
            tokens = unit_bpe.train(sequences, vocabulary, base_size=size, separator=separator)
            counts = np.zeros(tokens.vocabulary_size, dtype=np.int64)
            for sequence in sequences:
                np.add.at(counts, tokens.encode(sequence), 1)
            at = {"symbols": name, "vocabulary": vocabulary}
            table.add("evenness", normalized_entropy(counts), unit="", at=at, samples=len(sequences))
            ratio = float(counts.sum()) / symbols
            table.add("corpus_length_ratio", ratio, unit="share", at=at, samples=len(sequences))
    table.write(stage.output)
