"""Parameters and metrics of Token Recycling: prompts, drafts, and what drafting and verifying them brings."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from flows.declarations.metric import Metric
from flows.declarations.parameters import StudyParams

Base = Literal["code", "math"]


class TrainParams(StudyParams):
    """Which prompts are judged, and what stands ready before an arm begins; the models are given, none is trained."""

    models: tuple[Base, ...] = ("code", "math")
    """Language models, each with held-out prompts of its own kind."""
    prompt_seeds: tuple[int, ...] = Field((0, 1, 2), min_length=2)
    """Prompt sets there are; a model is judged in one way on all of them."""
    candidates: int = Field(150, ge=2)
    """Prompts of a set that are looked at, in order."""
    judged_prompts: int = Field(20, ge=2)
    """Prompts of a set that are judged, and as many of the first ones, unfiltered, that are reported."""
    fewest_judged: int = Field(10, ge=1)
    """Where fewer prompts of a set qualify, the model is judged under coupled sampling."""
    shortest_prompt: int = Field(32, ge=1)
    """Fewest tokens of a prompt."""
    longest_prompt: int = Field(96, ge=1)
    """Most tokens of a prompt."""
    new_tokens: int = Field(64, ge=4)
    """Tokens that each prompt is continued by."""
    distinct_share: float = Field(0.7, ge=0, le=1)
    """Least share of distinct 4-grams in the plain greedy continuation of a prompt that qualifies."""
    temperature: float = Field(0.7, gt=0)
    """Temperature of coupled sampling."""
    warm_matrix: bool = False
    """Whether the matrix is made, too, that the method leaves behind after another prompt set."""

    @model_validator(mode="after")
    def _fits(self) -> TrainParams:
        if self.shortest_prompt > self.longest_prompt:
            raise ValueError(
                f"shortest_prompt is {self.shortest_prompt} and longest_prompt {self.longest_prompt}; expected "
                "shortest_prompt <= longest_prompt."
            )
        if self.judged_prompts > self.candidates:
            raise ValueError(f"judged_prompts is {self.judged_prompts}, but there are {self.candidates} candidates.")
        return self


class EvaluateParams(TrainParams):
    """How an arm drafts."""

    start: Literal["zero", "warm", "bigram"] = "zero"
    """What the adjacency matrix holds at first: zeros, what the method left after another prompt set, or the likeliest
    successors in the training text."""
    drafter: Literal["adjacency", "prompt_lookup", "undrafted"] = "adjacency"
    """Module of components.language.speculative that proposes drafts."""
    k: int = Field(8, ge=1)
    """Candidates of a token in the adjacency matrix."""
    drafts: int = Field(80, ge=1, le=80)
    """Nodes of the tree, the first of the released one."""
    branching: bool = True
    """Whether the tree branches; otherwise it is the chain of first candidates."""
    refresh: bool = True
    """Whether what was verified is written back into the matrix."""
    keep: bool = True
    """Whether the matrix lives on from prompt to prompt."""
    update_on_prefill: bool = False
    """Whether the prompt's own logits are written into the matrix, too."""
    lookup_longest: int = Field(3, ge=1)
    """Most tokens that prompt look-up matches."""
    lookup_depth: int = Field(10, ge=1)
    """Most tokens that prompt look-up proposes."""
    float64: bool = False
    """Whether the judged prompts are decoded in double precision, too, where rounding decides nothing."""
    measure_models: bool = False
    """Whether the language models are measured: held-out nats beside a bigram's, and the time of a forward pass."""

    @model_validator(mode="after")
    def _starts(self) -> EvaluateParams:
        if self.start == "warm" and not self.warm_matrix:
            raise ValueError("start: warm needs the matrix of another prompt set; add warm_matrix: true.")
        return self

    def drafter_options(self) -> dict[str, int | bool]:
        """Return the keyword arguments of the drafter's `build` but the matrix to start from."""
        if self.drafter == "adjacency":
            names = ("k", "drafts", "branching", "refresh", "keep", "update_on_prefill")
            return {name: getattr(self, name) for name in names}
        if self.drafter == "prompt_lookup":
            return {"longest": self.lookup_longest, "depth": self.lookup_depth}
        return {}


METRICS = {
    "mat": Metric(
        "tokens/forward",
        "higher",
        "Mean accepted tokens: new tokens over forward passes, prefill not counted, on the judged prompts. One value "
        "per prompt, whose mean is the ratio of all prompts (jackknife pseudo-values).",
    ),
    "unfiltered_mat": Metric(
        "tokens/forward", "higher", "The same on the first prompts of the set, whether their continuations loop or not."
    ),
    "mismatching_sequences": Metric(
        "sequences", "lower", "Judged prompts whose continuation differs anywhere from plain decoding, by precision."
    ),
    "first_difference_gap": Metric(
        "logits",
        "neither",
        "How far the two largest logits of plain decoding are apart where a single-precision continuation first "
        "differs; only of prompts that differ.",
    ),
    "accepted_share": Metric("share", "neither", "Share of the forward passes that gave so many tokens."),
    "acceptance_by_depth": Metric(
        "share", "higher", "Of the passes whose accepted path got as far as the level above, the share that got here."
    ),
    "acceptance_by_candidate": Metric(
        "share", "neither", "Share of the accepted drafts that stood at this place in their parent's row."
    ),
    "draft_nodes": Metric("tokens", "neither", "Most drafts of a forward pass: nodes of the tree without its root."),
    "rows_touched": Metric("share", "neither", "Share of the matrix's rows that were ever written."),
    "rows_written": Metric("rows/forward", "neither", "Rows of the matrix that a forward pass writes."),
    "matrix_bytes": Metric("bytes", "lower", "Memory of the adjacency matrix."),
    "qualifying_share": Metric(
        "share", "neither", "Share of the prompts looked at whose plain greedy continuation is full and does not loop."
    ),
    "coupled": Metric("", "neither", "1 where the model is judged under coupled sampling, 0 where greedily."),
    "held_out_nats": Metric(
        "nats/token", "lower", "-ln P(token) on held-out windows, of the network or of a bigram of its training text."
    ),
}


def components(params: TrainParams, kind: str) -> tuple[str, ...]:
    """Return the modules that an arm chooses by name: editing one makes only its arms stale."""
    package = "components.language.speculative"
    if kind == "train":
        return (f"{package}.adjacency",) if params.warm_matrix else ()
    assert isinstance(params, EvaluateParams)
    return (f"{package}.{params.drafter}",)
