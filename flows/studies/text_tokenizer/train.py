"""Learn the dictionaries of an arm from a real text, or train a transformer on the tokens of a Markov source."""

from __future__ import annotations

from components.tokenizers.text.bpe import WORD_PIECES
from flows.studies.context import StageContext
from flows.studies.text_tokenizer.params import TrainParams
from flows.studies.text_tokenizer.sources import split_text, symbols, text_directory, tokenizer_file, tokenizer_module
from flows.studies.text_tokenizer.transformer import train_transformer


def train(stage: StageContext) -> None:
    """Write the dictionaries of an arm, or its model."""
    if stage.params.experiment == "transformer":
        train_transformer(stage)
    else:
        learn_dictionaries(stage)


def learn_dictionaries(stage: StageContext) -> None:
    """Learn a dictionary of each size from a real text and write it as `tokenizer-<size>.json`."""
    params: TrainParams = stage.params
    directory = text_directory(stage)
    module = tokenizer_module(params.tokenizer)
    text, alphabet = split_text(directory, params.learning_split), symbols(directory)
    for done, size in enumerate(params.sizes, start=1):
        tokenizer = module.train([text], size, alphabet=alphabet, pieces=WORD_PIECES)
        tokenizer.save(stage.output / tokenizer_file(size))
        stage.progress(done, len(params.sizes))
