"""Make what an arm reads its corpora with, and induce a grammar from one of them."""

from __future__ import annotations

import importlib
from typing import Any

import torch

from components.bases import save_model, specification
from components.language.count_models import UnigramCounts
from components.training.determinism import derive_seed
from components.training.loop import Optimisation, fit
from flows.studies.analysis.params import TrainParams
from flows.studies.analysis.streams import (
    WORDS,
    image_tokenizer,
    numbers,
    patch_description,
    picture_count,
    pictures,
    sentences,
    symbols,
    text_module,
    texts,
    tokenizer_file,
    torch_numbers,
)
from flows.studies.context import StageContext

GRAMMAR = "grammar"
_WEIGHTS = 1
_ADAM_BETA2 = 0.999


def train(stage: StageContext) -> None:
    """Write the tokenizers of an arm that are not shared bases, and the grammar of its grammar corpus."""
    tokenizers = _learn_tokenizers(stage)
    if stage.params.grammar_corpus:
        _induce_grammar(stage, tokenizers[stage.params.grammar_corpus])


def grammar_description(params: TrainParams, vocabulary_size: int) -> dict[str, Any]:
    """Describe the grammar of an arm over a vocabulary."""
    return specification(
        "components.analysis.grammar_induction",
        vocabulary_size=vocabulary_size,
        nonterminals=params.nonterminals,
        preterminals=params.preterminals,
        latent_dim=params.latent_dim,
        hidden=params.hidden,
    )


def _learn_tokenizers(stage: StageContext) -> dict[str, Any]:
    """Return the tokenizer of each corpus; write those that are learned here."""
    params: TrainParams = stage.params
    corpora = dict.fromkeys((*params.corpora, *filter(None, [params.grammar_corpus])))
    if params.stream == "text":
        found = {}
        for corpus in corpora:
            documents = texts(stage, corpus, "learn")
            alphabet = symbols(stage, corpus)
            module = text_module(params)
            found[corpus] = module.train(documents, params.vocabulary_size, alphabet=alphabet, pieces=WORDS)
            found[corpus].save(stage.output / tokenizer_file(corpus))
        return found
    tokenizer = image_tokenizer(stage)
    if params.stream == "image_patches":
        corpus = next(iter(corpora))
        order = numbers(stage.seed, "patches").permutation(picture_count(stage, corpus, "learn"))
        images = pictures(stage, corpus, "learn", order[: params.patch_images]).images
        tokenizer.start_from(images.to(stage.device), torch_numbers(stage.seed, "k-means"))
        save_model(stage.output, tokenizer, patch_description(params))
    return dict.fromkeys(corpora, tokenizer)


def _induce_grammar(stage: StageContext, tokenizer: Any) -> None:
    """Train a grammar on the sentences of its corpus and write it, with its gain over the unigram model on the way."""
    params: TrainParams = stage.params
    module = importlib.import_module("components.analysis.grammar_induction")
    learned, _ = sentences(stage, tokenizer, params.sentences, held_out=False)
    held_out, _ = sentences(stage, tokenizer, params.held_out_sentences, held_out=True)
    size = len(tokenizer.vocabulary) if params.stream == "text" else tokenizer.codebook_size
    description = grammar_description(params, size)

    torch.manual_seed(derive_seed(stage.seed, _WEIGHTS))
    grammar = module.build(**description["arguments"])
    unigram = UnigramCounts(learned.flatten(), size)
    watched = module.WatchedGrammar(grammar, held_out, unigram, params.look_every, params.steps)
    curves = fit(
        watched,
        lambda step, generator: learned[torch.randint(len(learned), (params.batch,), generator=generator)],
        lambda watched, batch, generator: module.grammar_loss(watched.model, batch, generator),
        Optimisation(
            params.steps,
            params.learning_rate,
            final_fraction=1.0,
            betas=(params.beta1, _ADAM_BETA2),
            weight_decay=0.0,
            gradient_clip=params.gradient_clip,
        ),
        seed=stage.seed,
        device=stage.device,
        checkpoint=stage.checkpoint,
        progress=stage.progress,
        after_step=lambda watched, step, generator: watched.look(step + 1),
        units={"loss": "nats/token", "kl": "nats/token"},
    )
    for look, gain in enumerate(watched.gains.tolist(), start=1):
        curves.add("gain", look * params.look_every, gain, unit="%")
    directory = stage.output / GRAMMAR
    directory.mkdir()
    save_model(directory, grammar, description)
    curves.write(stage.output)
