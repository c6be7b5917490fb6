"""The survey's taxonomy as data: quantizer families, tiers of use, challenges and directions.

Names of modules and papers are those of this repository, so that a family leads to the code that is it and to the
papers that use it. The survey's name of the eighth family is not confirmed; its idea, tokens of anchors and relations,
is NodePiece's.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import polars as pl


@dataclass(frozen=True)
class QuantizerFamily:
    """One of the eight families.

    Attributes:
        family: Short name.
        name: Name in words.
        codebook: Whether codes are learned or implied by a formula.
        gradient: How a gradient passes.
        bits: Nominal bits of a token; K codes of a book, M books, D dimensions, L levels.
        structure: How a code is made up.
        failures: What typically goes wrong.
        modalities: Where it is used.
        modules: Modules that are it.
        papers: Papers of the catalogue that use it or measure it.
    """

    family: str
    name: str
    codebook: str
    gradient: str
    bits: str
    structure: str
    failures: str
    modalities: tuple[str, ...]
    modules: tuple[str, ...]
    papers: tuple[str, ...]


FAMILIES = (
    QuantizerFamily(
        "VQ",
        "vector quantization",
        "learned",
        "straight-through, or turned (rotation trick), or Gumbel softmax; commitment",
        "log2 K",
        "nearest of K codes",
        "collapse as K grows; biased gradient",
        ("image", "audio", "video", "action", "motion", "recommendation"),
        (
            "components.quantizers.vq",
            "components.quantizers.euclidean_vq",
            "components.quantizers.gumbel",
            "components.quantizers.rotation_trick",
            "components.quantizers.kmeans",
        ),
        ("one-d-piece", "alit", "karl", "visual-token-language", "robust-latent", "muse-vl", "dau-tokenization"),
    ),
    QuantizerFamily(
        "RVQ",
        "residual vector quantization",
        "learned",
        "straight-through over the sum; commitment at every stage",
        "M log2 K",
        "sum of M codes, each nearest to what the ones before left",
        "late stages carry little; stages depend on one another",
        ("audio", "recommendation", "motion", "image"),
        ("components.quantizers.rvq",),
        ("fusecodec", "dm-codec", "codec-asr", "dasb", "discrete-audio-survey", "asvr", "setrec"),
    ),
    QuantizerFamily(
        "PQ",
        "product quantization",
        "learned",
        "straight-through in each part; commitment",
        "M log2 K",
        "M parts of the vector, each with a book of its own",
        "dependence between parts is lost; no coarse-to-fine order",
        ("image", "recommendation", "video"),
        (
            "components.quantizers.pq",
            "components.quantizers.multi_codebook",
            "components.quantizers.channel_split",
        ),
        ("unitok", "4m-21", "mambavideo"),
    ),
    QuantizerFamily(
        "AQ",
        "additive vector quantization",
        "learned",
        "straight-through over the sum; commitment",
        "M log2 K",
        "sum of M codes, chosen jointly by beam search",
        "the search is approximate and slow; no prefix of a code is a code",
        ("retrieval", "image", "audio"),
        ("components.quantizers.additive",),
        ("discrete-tokenization-survey",),
    ),
    QuantizerFamily(
        "FSQ",
        "finite scalar quantization",
        "implicit",
        "straight-through past the rounding",
        "sum over D of log2 L",
        "L levels in each of D bounded dimensions",
        "few dimensions; outer levels are rare",
        ("image", "audio", "video"),
        ("components.quantizers.fsq", "components.quantizers.dimension_wise"),
        ("flextok", "codec-asr", "orbis", "mambavideo", "tokenbridge"),
    ),
    QuantizerFamily(
        "LFQ",
        "lookup-free quantization",
        "implicit",
        "straight-through past the sign; entropy terms, commitment",
        "D",
        "signs of D dimensions",
        "entropy term must be balanced, or bits die",
        ("image", "video"),
        ("components.quantizers.lfq", "components.quantizers.binary_bernoulli", "components.quantizers.bit_entropy"),
        ("mambavideo", "instella-t2i"),
    ),
    QuantizerFamily(
        "BSQ",
        "binary spherical quantization",
        "implicit",
        "straight-through on the sphere; entropy terms that factorise",
        "D",
        "signs of a unit vector, over sqrt(D)",
        "length of the vector is lost; error grows towards the axes",
        ("image", "video"),
        ("components.quantizers.bsq",),
        ("discrete-tokenization-survey",),
    ),
    QuantizerFamily(
        "ART",
        "anchor and relation tokens of graphs",
        "learned",
        "none needed: tokens come from the graph, embeddings learn by look-up",
        "k log2 (A x distances) + m log2 (2 R)",
        "k nearest of A anchors with distances, m of R relation types",
        "nodes with the same tokens cannot be told apart",
        ("graph",),
        ("components.tokenizers.graph.anchor_relation",),
        ("discrete-tokenization-survey",),
    ),
)
"""A. Families of quantizers."""

TIERS = (
    ("classical applications", "no language model", ("retrieval", "compression", "generation")),
    (
        "one modality beside text",
        "a language model and one further modality",
        ("image", "audio", "graph", "action", "recommendation"),
    ),
    (
        "several modalities beside text",
        "a language model and several further modalities",
        (
            "text + image",
            "text + audio",
            "text + video",
            "text + image + audio",
            "text + image + video",
            "text + action",
        ),
    ),
)
"""B. Tiers of use: name, what takes part, tasks or modalities."""

CHALLENGES = (
    ("codebook collapse", "collapse-vq-vs-implicit"),
    ("gradient estimation", "gradient-estimators"),
    ("granularity and semantic alignment", "progressive-residual"),
    ("unification across modalities", "structured-beats-flat-on-speech"),
    ("interpretability", ""),
)
"""C. Challenges, and the claim here that is about each ("" where none is)."""

DIRECTIONS = (
    ("adaptive length", ("one-d-piece", "alit", "karl", "flextok")),
    ("task-adaptive codebooks", ("tokenizer-post-training", "asvr")),
    ("unified tokenizers", ("unitok", "fuselip", "muse-vl", "4m-21")),
    ("biologically inspired codebooks", ()),
)
"""D. Directions, and the papers of the catalogue that go there."""


def families() -> pl.DataFrame:
    """Return the families as a table, one row each; what is several words is joined by commas."""
    rows = [
        {name: ", ".join(value) if isinstance(value, tuple) else value for name, value in asdict(row).items()}
        for row in FAMILIES
    ]
    return pl.DataFrame(rows)


def tiers() -> pl.DataFrame:
    """Return the tiers of use as a table."""
    rows = [(name, part, ", ".join(tasks)) for name, part, tasks in TIERS]
    return pl.DataFrame(rows, schema=["tier", "what takes part", "tasks or modalities"], orient="row")


def challenges() -> pl.DataFrame:
    """Return challenges and directions as a table: kind, name, and what here is about it (a claim, or papers)."""
    rows = [("challenge", name, claim) for name, claim in CHALLENGES]
    rows += [("direction", name, ", ".join(papers)) for name, papers in DIRECTIONS]
    return pl.DataFrame(rows, schema=["kind", "name", "here"], orient="row")
