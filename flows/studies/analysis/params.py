"""Parameters and metrics of the analysis study: what streams of tokens look like, wherever they come from.

A stream is a corpus read by a tokenizer: images by a base or by k-means of raw patches, text by sub-words, or a random
source whose law is known. Every statistic is measured in the same way on each of them.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from flows.declarations.metric import Metric
from flows.declarations.parameters import StudyParams

IMAGES = ("cifar10", "noto-emoji", "photos", "shapes-64")
TEXTS = ("wikitext2", "multi30k-en", "multi30k-de", "multi30k-fr", "multi30k-cs")
LAWS = ("uniform", "zipf")


class TrainParams(StudyParams):
    """What reads a corpus into tokens, and the grammar that is induced from them."""

    stream: Literal["image_base", "image_patches", "text", "random"] = "text"
    """A shared image tokenizer, k-means of raw patches, a text tokenizer, or independent draws from a known law."""
    corpora: tuple[str, ...] = ()
    """What is read: data sets of images, texts (a data set, with the language where it has several) or laws."""
    bases: tuple[str, ...] = ()
    """Image tokenizer of each seed, seed 0 first; one name serves all seeds."""
    base_quantizer: str = "euclidean_vq"
    """Module of components.quantizers of those tokenizers."""
    tokenizer: Literal["wordpiece", "bpe"] = "wordpiece"
    """Module of components.tokenizers.text."""
    vocabulary_size: int = Field(512, ge=2)
    """Tokens of a dictionary, clusters of patches, or symbols of a random source."""
    dictionary_documents: int = Field(5_000, ge=1)
    """Documents a dictionary is learned from; none of them is in the corpus that is measured."""
    image_side: int = Field(32, ge=4)
    """Height and width of images whose patches are clustered, pixels."""
    patch_side: int = Field(4, ge=1)
    """Side of a patch, pixels."""
    patch_images: int = Field(2_000, ge=1)
    """Images whose patches are clustered."""
    patch_iterations: int = Field(50, ge=1)
    """Iterations of k-means at most."""
    shuffled: bool = False
    """Whether the tokens of each document, and of each sentence of the grammar, are put into random order."""
    grammar_corpus: str = ""
    """Corpus that a grammar is induced from; "" for none."""
    sentence_tokens: int = Field(16, ge=2)
    """Tokens of a sentence of the grammar; of an image, a square crop read row by row."""
    sentences: int = Field(24_000, ge=2)
    """Sentences to learn from; fewer where the corpus has not as many."""
    held_out_sentences: int = Field(2_000, ge=2)
    """Sentences of documents that nothing learned from."""
    nonterminals: int = Field(10, ge=1)
    """Nonterminals of the grammar."""
    preterminals: int = Field(20, ge=1)
    """Preterminals of the grammar."""
    latent_dim: int = Field(16, ge=1)
    """Width of a sentence's latent."""
    hidden: int = Field(64, ge=1)
    """Width of the grammar's embeddings and networks."""
    steps: int = Field(2_000, ge=1)
    """Updates of the grammar."""
    batch: int = Field(32, ge=1)
    """Sentences of an update."""
    learning_rate: float = Field(3e-3, gt=0)
    """Constant learning rate of Adam."""
    beta1: float = Field(0.75, ge=0, lt=1)
    """Decay of Adam's first moment."""
    gradient_clip: float = Field(3.0, gt=0)
    """Largest norm of the gradient."""
    look_every: int = Field(250, ge=1)
    """Updates between two looks at the gain on held-out sentences."""

    @model_validator(mode="after")
    def _fits(self) -> TrainParams:
        known = {"text": TEXTS, "random": LAWS}.get(self.stream, IMAGES)
        if unknown := sorted({*self.corpora, *filter(None, [self.grammar_corpus])} - set(known)):
            raise ValueError(f"stream {self.stream} has no corpus {unknown[0]!r}; expected some of {', '.join(known)}.")
        if self.stream == "image_base" and not self.bases:
            raise ValueError("stream image_base needs 'bases', the tokenizer of each seed.")
        if self.grammar_corpus and self.stream == "random":
            raise ValueError("no grammar is induced from a random source; remove 'grammar_corpus'.")
        return self

    def base_of(self, seed: int) -> str:
        """Return the name of the image tokenizer of a seed."""
        return self.bases[seed % len(self.bases)]


class EvaluateParams(TrainParams):
    """How streams are measured."""

    tokens: int = Field(200_000, ge=20)
    """Tokens of every corpus, all or the first of documents in random order."""
    corpus_pool: int = Field(200_000, ge=1)
    """Documents to draw the corpus from at most."""
    longest_gram: int = Field(4, ge=2, le=8)
    """Longest n-grams whose frequencies are fitted."""
    orders: int = Field(20, ge=1)
    """Random orders of documents over which vocabulary growth is averaged."""
    early_share: float = Field(0.02, gt=0, lt=1)
    """Share of the corpus after which the types seen are counted."""
    resamples: int = Field(1_000, ge=2)
    """Bootstrap resamples of documents."""
    least_rank_share: float = Field(0.0, ge=0, lt=1)
    """Share of all n-gram occurrences at the top ranks that the fits of rank laws leave out."""
    linearisations: tuple[Literal["raster", "column_major", "hilbert"], ...] = ("raster",)
    """Orders in which cells of an image are read; the first is the stream, the others are measured beside it."""
    granularity_scenes: int = Field(0, ge=0)
    """Scenes with masks on which tokens are compared with objects and parts; 0 for none."""
    gate_images: int = Field(500, ge=2)
    """Test images on which an image tokenizer's reconstructions are compared with the mean colour of each cell."""
    embedding_dim: int = Field(64, ge=0)
    """Width of co-occurrence embeddings; 0 for none."""
    embedding_window: int = Field(5, ge=1)
    """Tokens to either side that count as context."""
    embedding_steps: int = Field(300, ge=1)
    """Updates of the embeddings, each on all pairs."""
    elbo_samples: int = Field(4, ge=1)
    """Draws of the latent for each held-out sentence."""
    shape_sentences: int = Field(500, ge=1)
    """Held-out sentences whose best trees are described."""
    zipf_exponent: float = Field(1.2, gt=0)
    """Exponent of the random source `zipf`."""


METRICS: dict[str, Metric] = {}


def components(params: TrainParams, kind: str) -> tuple[str, ...]:
    """Return the modules that an arm chooses by name: editing one makes only its arms stale."""
    modules = {
        "image_base": ("components.tokenizers.image.grid", f"components.quantizers.{params.base_quantizer}"),
        "image_patches": ("components.tokenizers.image.patch_grid", "components.quantizers.kmeans"),
        "text": (f"components.tokenizers.text.{params.tokenizer}",),
        "random": (),
    }[params.stream]
    return (*modules, "components.analysis.grammar_induction") if params.grammar_corpus else modules
