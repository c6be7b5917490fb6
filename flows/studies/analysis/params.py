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
    """Height and width of images whose patches are clustered, and of the tiles of photographs, pixels."""
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
    longest_gram: int = Field(4, ge=2, le=8)
    """Longest n-grams whose frequencies are fitted."""
    orders: int = Field(20, ge=1)
    """Random orders of documents over which vocabulary growth is averaged."""
    early_share: float = Field(0.02, gt=0, lt=1)
    """Share of the corpus after which the types seen are counted."""
    resamples: int = Field(1_000, ge=2)
    """Bootstrap resamples of documents."""
    least_count: int = Field(10, ge=1)
    """Types that occur less often are left out of the fits of rank laws: chance decides their ranks."""
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


METRICS = {
    "live_types": Metric("types", "neither", "Types of the vocabulary that occur in the corpus."),
    "live_share": Metric(
        "share", "neither", "The same as a share of the vocabulary: a collapsed tokenizer shows here."
    ),
    "corpus_documents": Metric("documents", "neither", "Documents that the corpus is made of."),
    "zipf_parameter": Metric(
        "", "neither", "Exponent of the rank law (rho of Yule-Simon), by maximum likelihood over ranks."
    ),
    "mandelbrot_shift": Metric("ranks", "neither", "b of Zipf-Mandelbrot."),
    "rank_likelihood": Metric("nats/type", "higher", "Log-likelihood of all ranks under the law, divided by types."),
    "rank_ks": Metric("", "lower", "Kolmogorov-Smirnov distance of the law's shares accumulated over ranks."),
    "bic_excess": Metric("nats", "lower", "BIC of the law minus that of the best of the three: 0 for the winner."),
    "rank_curvature": Metric(
        "", "neither", "c of ln f = a + b ln r + c (ln r)^2 at ranks even in ln r: positive is convex."
    ),
    "share_seen_early": Metric(
        "share",
        "neither",
        "Share of the types that occur in the whole corpus seen after its first `early_share`, over document orders.",
    ),
    "heaps_exponent": Metric(
        "", "neither", "beta of V = K t^beta of n-grams, fitted to the growth curve averaged over document orders."
    ),
    "innovation_rate": Metric(
        "types/token", "neither", "New n-grams per n-gram read over the last tenth of the corpus."
    ),
    "documents_until_90": Metric(
        "documents", "neither", "Documents read until 90% of the types were seen, over orders."
    ),
    "benford_chi_square": Metric(
        "", "lower", "Chi-square of the leading digits of n-gram counts against Benford's law."
    ),
    "benford_mad": Metric("", "lower", "Mean absolute deviation of the leading digits' shares from Benford's law."),
    "digit_share": Metric("share", "neither", "Share of n-gram counts with a leading digit."),
    "entropy": Metric("bits/token", "neither", "Entropy of single tokens, Miller-Madow."),
    "normalised_entropy": Metric("", "neither", "Plug-in entropy of single tokens over log2 of the vocabulary."),
    "conditional_entropy": Metric(
        "bits/token", "neither", "Entropy of a token given the n - 1 before it, from block entropies, Miller-Madow."
    ),
    "huffman_saving": Metric("%", "neither", "100 (1 - L / ceil(log2 V)), L the mean Huffman code of single tokens."),
    "pair_huffman_saving": Metric("%", "neither", "The same for pairs of neighbouring tokens, the code not counted."),
    "gzip_share": Metric("%", "lower", "Size after Deflate (level 9) over that of fixed-length codes."),
    "lzma_share": Metric("%", "lower", "Size after LZMA over that of fixed-length codes."),
    "reconstruction_psnr": Metric("dB", "higher", "PSNR of test images decoded from their tokens."),
    "psnr_above_cell_means": Metric("dB", "higher", "The same minus the PSNR of every cell's mean colour."),
    "homogeneity": Metric("", "higher", "1 - H(label | token) / H(label) over the cells of scenes."),
    "completeness": Metric("", "higher", "1 - H(token | label) / H(token) over the cells of scenes."),
    "v_measure": Metric("", "higher", "Harmonic mean of homogeneity and completeness."),
    "ami": Metric("", "higher", "Mutual information of token and label, adjusted for chance."),
    "ami_null": Metric("", "neither", "The same with the labels of each scene in random order among its cells."),
    "ami_above_null": Metric("", "higher", "ami minus ami_null."),
    "part_advantage": Metric("", "neither", "ami with labels of parts minus ami with labels of whole objects."),
    "one_segment_share": Metric(
        "share", "neither", "Chance that two cells of a scene with one token lie in one object, or in one part of one."
    ),
    "one_segment_null": Metric("share", "neither", "The same with the segments of each scene in random order."),
    "grammar_nats": Metric(
        "nats/token", "lower", "-log P of held-out sentences over tokens: bound of the grammar, unigram, bigram."
    ),
    "gain": Metric("%", "higher", "100 (1 - PPL / PPL_unigram) of the grammar on held-out sentences."),
    "bigram_gain": Metric("%", "higher", "The same of a bigram model that falls back on the unigram model."),
    "order_gain": Metric(
        "%", "higher", "gain minus the gain on the same sentences with the tokens of each in random order."
    ),
    "rules_for_95": Metric("%", "neither", "Share of binary rules that carry 95% of expected uses."),
    "tree_depth": Metric("rules", "neither", "Binary rules above a token in the most probable trees, mean."),
    "right_branching": Metric("share", "neither", "Spans of three tokens or more that split off their first token."),
    "left_branching": Metric("share", "neither", "Spans of three tokens or more that split off their last token."),
    "procrustes_residual": Metric(
        "", "lower", "What is left after rotating tokens onto those of another space of the same frequency rank."
    ),
    "nearest_distance": Metric(
        "", "lower", "Mean distance to the nearest point of the other space after iterated matching."
    ),
    "mutual_share": Metric("share", "higher", "Points that are the nearest of their nearest in the other space."),
    "directed_hausdorff": Metric("", "lower", "Largest distance to the nearest point of the other space."),
    "hausdorff": Metric("", "lower", "Larger of the two directed distances."),
}


def components(params: TrainParams, kind: str) -> tuple[str, ...]:
    """Return the modules that an arm chooses by name: editing one makes only its arms stale."""
    modules = {
        "image_base": ("components.tokenizers.image.grid", f"components.quantizers.{params.base_quantizer}"),
        "image_patches": ("components.tokenizers.image.patch_grid", "components.quantizers.kmeans"),
        "text": (f"components.tokenizers.text.{params.tokenizer}",),
        "random": (),
    }[params.stream]
    return (*modules, "components.analysis.grammar_induction") if params.grammar_corpus else modules
