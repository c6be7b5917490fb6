"""Parameters and metrics of sticky-tokens: which tokens are measured on which pairs, and what is made of it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from flows.declarations.metric import Metric
from flows.declarations.parameters import StudyParams

# All 21 sticky tokens of all-MiniLM-L6-v2 in the table of results of the authors' repository (March-7/StickyToken).
PUBLISHED = (
    *(
        "（",
        "textbook",
        "h₂o",
        "satisfy",
        "trajectory",
        "julio",
        "functioning",
        "[CLS]",
        "₂",
        "gambia",
        "defendant",
        "？",
        "{",
    ),
    *("functioned", "imaginative", "cultivated", "う", "intelligent", "oskar", "whereupon", "intended"),
)


class TrainParams(StudyParams):
    """What is measured: distances of pairs of sentences before and after insertions. Nothing is learned."""

    measure: Literal["verification", "ranking", "definition"] = "verification"
    """Verification pairs, scoring pairs of the study of rankings, or the definition on a subset of tokens."""
    tokens: Literal["scan_top", "random", "frequent_words"] = "scan_top"
    """Tokens that are verified: the first of the scan, uniform usable ones, or the commonest words."""
    encoder: str = "all-minilm-l6-v2"
    """Data set of the encoder's files."""
    scan: str = "minilm-token-scan"
    """Base with the ranking of the whole vocabulary and the mean similarity of tokens."""
    samples: int = Field(4, ge=2)
    """Samples that the sentences are cut into, as the scan cuts them; it takes the first, seed s the one s + 1 on."""
    sentences: int = Field(1_000, ge=3)
    """Sentences of a sample."""
    shortest: int = Field(6, ge=1)
    """Fewest words of a sentence."""
    longest: int = Field(12, ge=1)
    """Most words of a sentence."""
    scoring_pairs: int = Field(5, ge=1)
    """Pairs that tokens are scored on."""
    verification_pairs: int = Field(40, ge=4)
    """Pairs that tokens are verified on, none of them a scoring pair."""
    above_pairs: int = Field(10, ge=0)
    """Pairs above the mean similarity, where a sticky token has to lower similarity."""
    copies: tuple[int, ...] = (4, 8)
    """Numbers of copies inserted, increasing."""
    joint: Literal["spaced", "bare"] = "spaced"
    """How copies in front and behind touch: spaces between, or none, as in the public code, where pieces may form."""
    scan_tokens: int = Field(100, ge=1)
    """Tokens from the top of the scan that are verified."""
    random_tokens: int = Field(100, ge=1)
    """Random tokens that are verified beside them."""
    frequent_words: int = Field(50, ge=1)
    """Commonest words of the corpora that are verified."""
    published: tuple[str, ...] = PUBLISHED
    """Tokens of the published list."""
    study_tokens: int = Field(350, ge=2)
    """Random tokens that the published ones are ranked among, the same in every sample."""
    fragments: int = Field(32, ge=0)
    """Pieces that go on within a word, inserted without their mark; reported."""
    definition_tokens: int = Field(300, ge=3)
    """Tokens that the definition is applied to: a sixth from the top of the scan, the others random."""


class EvaluateParams(TrainParams):
    """What is made of the distances."""

    selection: Literal["cross_fitted", "all"] = "all"
    """Tokens that count on a half of the pairs: those verified on the other half, or all."""
    outliers: float = Field(0.7, ge=0)
    """Interquartile ranges above the third quartile of the candidates' shares of moved cases that one has to exceed."""
    least_detected: int = Field(3, ge=1)
    """Detected tokens of each half below which a sample judges nothing."""
    ranking: Literal["score", "no_distance", "random"] = "score"
    """What orders the tokens of the study: the score, the score without its distance term, or random numbers."""
    retrieval_tokens: int = Field(0, ge=0)
    """Tokens put before documents, the most sticky first; 0 for no retrieval."""
    retrieval_copies: int = Field(8, ge=1)
    """Copies before every document."""
    articles: int = Field(20, ge=1)
    """Articles that passages are drawn from; the classes of clustering."""
    passages: int = Field(10, ge=1)
    """Passages of an article."""
    queries: int = Field(150, ge=2)
    """Passages whose first sentence becomes a query."""
    passage_words: int = Field(36, ge=2)
    """Words of a passage at most, about 48 tokens."""
    attention_tokens: int = Field(0, ge=0)
    """Tokens whose attention is measured; 0 for none."""
    attention_sentences: int = Field(10, ge=1)
    """Sentences that they are put before."""
    resamples: int = Field(2_000, ge=2)
    """Bootstrap resamples of queries and tokens."""
    permutations: int = Field(10_000, ge=2)
    """Permutations of the labels of tokens."""
    tolerance: float = Field(0.05, gt=0)
    """Largest distance from the mean similarity at which a pair counts as there (definition)."""


METRICS = {
    "verification_fraction": Metric(
        "fraction", "higher", "Weighted share of modes in which a token moves a pair toward the mean, by pair."
    ),
    "moved_fraction_above": Metric(
        "fraction", "higher", "The same on pairs above the mean similarity, where the move is downward, by pair."
    ),
    "spread_ratio": Metric("ratio", "lower", "Standard deviation of cosine over pairs after insertion over before."),
    "contraction": Metric("ratio", "lower", "Mean distance of cosine from the mean similarity after over before."),
    "mean_similarity": Metric("", "neither", "Mean cosine of all pairs of single tokens, diagonal included."),
    "measured_tokens": Metric("tokens", "neither", "Tokens that were inserted."),
    "verification_bar": Metric(
        "fraction", "neither", "Share of cases that a token has to move to pass the check, the mean of the two halves."
    ),
    "tokens_detected": Metric("tokens", "neither", "Tokens verified on one half of the pairs, fewest of the two."),
    "enough_detected": Metric("", "higher", "1 where both halves detect as many tokens as are asked for, else 0."),
    "realised_copies": Metric("tokens", "neither", "Token ids that one inserted copy became."),
    "mann_whitney_p": Metric(
        "probability", "lower", "One-sided probability that detected tokens move pairs no more than random ones."
    ),
    "published_auc": Metric(
        "probability", "higher", "Share of random tokens that score below a published one, ties half, by token."
    ),
    "published_p": Metric(
        "probability", "lower", "Permutation probability of the AUC averaged over samples; the same in each."
    ),
    "mean_score": Metric("", "neither", "Mean score of a kind of tokens."),
    "ndcg": Metric("", "higher", "nDCG at 10 of queries with one relevant passage."),
    "reciprocal_rank": Metric("", "higher", "1 over the rank of the relevant passage."),
    "ndcg_change": Metric("%", "higher", "Change of nDCG at 10 by insertion, relative to its mean without."),
    "excess_drop": Metric("%", "higher", "Relative drop of nDCG at 10 by detected tokens minus that by random ones."),
    "cluster_agreement": Metric("", "higher", "Agreement of k-means clusters of passages with their articles."),
    "attention_share": Metric("share", "neither", "Attention of a layer that goes to inserted positions."),
    "attention_distance": Metric("", "neither", "Frobenius distance of a layer's maps before and after insertion."),
    "share_at_mean": Metric("fraction", "higher", "Share of edited pairs within the tolerance of the mean similarity."),
    "gold_correlation": Metric(
        "", "higher", "Rank correlation of the scan's score with how much of the way to the mean a token moves pairs."
    ),
}


def components(params: TrainParams, kind: str) -> tuple[str, ...]:
    """Return no modules: what the stages use they import."""
    return ()
