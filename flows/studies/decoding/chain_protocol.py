"""What a token model says about a Markov chain, where every probability is known.

Letters: S states, C contexts per state, A characters.
"""

from __future__ import annotations

import importlib
import math

import numpy as np
import polars as pl
import torch

from components.data.markov import Chain, read_chain
from components.language.byte_conversion import (
    CoverCorrection,
    MaxPrefixCorrection,
    TokenModel,
    Truncated,
    max_prefix_log_probability,
    truncated_calls,
)
from components.language.generation import PrefixSession
from components.metrics.tables import MetricTable, write_parquet
from components.tokenizers.text.validity import Validity
from flows.studies.context import StageContext
from flows.studies.decoding.models import predictor, trained_model, trained_tokenizer
from flows.studies.decoding.params import EvaluateParams
from flows.studies.decoding.sources import chain_tokenizer, stream

_CHUNK = 400
_BOOTSTRAP = 1000


def measure(stage: StageContext, table: MetricTable) -> None:
    """Measure one arm on the chain of its seed.

    A context is a text from its start, drawn from the chain given the state that it ends in. Arms of one seed share
    their contexts as far as they want the same lengths.
    """
    params: EvaluateParams = stage.params
    chain = read_chain(stage.inputs["data/markov"], stage.seed)
    tokenizer = trained_tokenizer(stage) if "train" in stage.inputs else chain_tokenizer(params, chain, stage.seed)
    validity = Validity(tokenizer)
    if params.model == "exact":
        module = importlib.import_module("components.language.exact_token_model")
        model = module.ExactTokenModel.of_chain(chain, tokenizer, params.enumerated_length)
    else:
        model = trained_model(stage)

    ask = predictor(params, model, tokenizer, validity)
    texts = state_contexts(chain, params, stage.seed)
    flat = [text for state in texts for text in state]
    estimates = []
    for start in range(0, len(flat), _CHUNK):
        estimates.append(ask.next_log_probabilities(flat[start : start + _CHUNK]).exp().cpu())
        stage.progress(min(start + _CHUNK, len(flat)), len(flat))
    estimates = torch.cat(estimates).numpy().reshape(len(texts), -1, len(chain.alphabet))  # [S, C, A]
    transition_metrics(table, chain, estimates, stage.seed)
    if params.model == "trained" and params.query != "direct":
        model_metrics(table, chain, model, validity, ask, params, stage.seed)
    if params.model == "trained" and params.query == "max_prefix_correction":
        calls = call_counts(chain, params, stage.seed, model, tokenizer, validity)
        call_metrics(table, calls)
        write_parquet(calls, stage.output / "calls.parquet")


def state_contexts(chain: Chain, params: EvaluateParams, seed: int) -> list[list[str]]:
    """Draw C contexts of random length for every state of the chain."""
    generator = stream(seed, "contexts")
    drawn = []
    for state in chain.states:
        count = params.contexts_per_state
        lengths = generator.integers(params.shortest, params.longest, size=count, endpoint=True)
        texts = chain.texts(chain.sample_ending_in(state, count, params.longest, generator))
        # The end of a stationary text is a stationary text.
        drawn.append([text[-length:] for text, length in zip(texts, lengths.tolist(), strict=True)])
    return drawn


def transition_metrics(table: MetricTable, chain: Chain, estimates: np.ndarray, seed: int) -> None:
    """Compare estimates of P(next | state), (S, C, A), with the chain's transitions."""
    states, contexts, _ = estimates.shape
    items = states * contexts
    truth = chain.transitions
    averages = estimates.mean(1)
    table.add(
        "mae",
        mean_error(averages, truth),
        unit="probability",
        samples=items,
        variance=_bootstrap_variance(estimates, truth, stream(seed, "bootstrap")),
        normaliser="states",
    )
    blind = np.broadcast_to(chain.character_frequencies, truth.shape)
    table.add("blind_mae", mean_error(blind, truth), unit="probability", samples=states, normaliser="states")
    table.add_items(
        "context_error",
        np.abs(estimates - truth[:, None]).mean(-1).ravel(),
        unit="probability",
        items=[f"{state}/{index}" for state in chain.states for index in range(contexts)],
    )
    for state, average, spread, true in zip(chain.states, averages, estimates.var(1, ddof=1), truth, strict=True):
        at = {"state": state}
        table.add("estimate", average[0], unit="probability", at=at, samples=contexts, variance=spread[0] / contexts)
        table.add("truth", true[0], unit="probability", at=at, samples=1)
    mass = np.abs(estimates.sum(-1) - 1).max()
    table.add("mass_error", mass, unit="probability", samples=items)


def mean_error(averages: np.ndarray, truth: np.ndarray) -> float:
    """Return the mean over states and characters of |average estimate - truth|, both (..., S, A)."""
    return np.abs(averages - truth).mean((-2, -1))


def _bootstrap_variance(estimates: np.ndarray, truth: np.ndarray, generator: np.random.Generator) -> float:
    """Return the variance of the mean error over contexts redrawn within each state.

    The absolute value has a kink at zero, where an exact model stands, so the delta method would not do.
    """
    states, contexts, _ = estimates.shape
    weights = generator.multinomial(contexts, np.full(contexts, 1 / contexts), size=(_BOOTSTRAP, states)) / contexts
    return float(mean_error(np.einsum("rsc,sca->rsa", weights, estimates), truth).var(ddof=1))


def model_metrics(
    table: MetricTable,
    chain: Chain,
    model: TokenModel,
    validity: Validity,
    ask: MaxPrefixCorrection | CoverCorrection,
    params: EvaluateParams,
    seed: int,
) -> None:
    """Measure the model on new texts of the chain: bits per character beside the chain's own, and invalid mass."""
    codes = chain.sample(params.contexts_per_state, params.longest, stream(seed, "held out"))
    texts = chain.texts(codes)
    per_bit = math.log(2) * params.longest
    bits = -ask.log_probabilities(texts).cpu().numpy() / per_bit
    table.add_items("bits_per_character", bits, unit="bits/character", normaliser="characters")
    source = -chain.log_probability(codes) / per_bit
    table.add_items("source_bits_per_character", source, unit="bits/character", normaliser="characters")

    tokens = torch.from_numpy(validity.tokenizer.first_tokens(texts, params.context - 1))
    inside = torch.nn.functional.pad(tokens >= 0, (1, 0), value=True)
    lost = Truncated(model, validity).lost(tokens.clamp(min=0)).cpu()
    # One item per text: the mean over its tokens.
    per_text = (lost * inside).sum(1) / inside.sum(1)
    table.add_items("invalid_mass", per_text.tolist(), unit="probability", normaliser="tokens")


def call_counts(chain: Chain, params: EvaluateParams, seed: int, model, tokenizer, validity: Validity) -> pl.DataFrame:
    """Run the recursion call by call and count the model's evaluations.

    Args:
        chain: Source of the strings of one kind; those of the other kind are uniformly random characters.
        params: Number and greatest length of the strings.
        seed: Seed of both kinds.
        model: Causal language model.
        tokenizer: Maximum prefix encoding.
        validity: Its valid sequences.

    Returns:
        One row per string: its kind ("random" or "chain"), its length in characters, its tokens and the calls.
    """
    generator = stream(seed, "calls")
    longest = max(params.longest_call, chain.order)
    lengths = generator.integers(1, params.longest_call, size=params.call_strings, endpoint=True).tolist()
    shape = (params.call_strings, longest)
    kinds = {
        "random": generator.integers(len(chain.alphabet), size=shape),
        "chain": chain.sample(*shape, generator),
    }
    rows = []
    for kind, codes in kinds.items():
        for string, length in zip(chain.texts(codes), lengths, strict=True):
            session = PrefixSession(model)
            max_prefix_log_probability(truncated_calls(session.next, validity), tokenizer, string[:length])
            rows.append((kind, length, len(tokenizer.encode(string[:length])), session.calls))
    schema = {"strings": pl.String, "length": pl.Int64, "tokens": pl.Int64, "calls": pl.Int64}
    return pl.DataFrame(rows, schema=schema, orient="row")


def call_metrics(table: MetricTable, calls: pl.DataFrame) -> None:
    """Compare calls with the number of tokens, and fit straight lines through calls by length."""
    for (kind,), part in calls.group_by("strings", maintain_order=True):
        at, samples = {"strings": kind}, len(part)
        excess = (part["calls"] - part["tokens"] - 1).max()
        table.add("calls_excess", excess, unit="calls", at=at, samples=samples)
        slope, r2 = straight_line(part["length"], part["calls"])
        table.add("calls_slope", slope, unit="calls/character", at=at, samples=samples)
        table.add("calls_r2", r2, unit="", at=at, samples=samples)
        means = part.group_by("length").agg(pl.col("calls").mean()).sort("length")
        table.add(
            "mean_calls_r2", straight_line(means["length"], means["calls"])[1], unit="", at=at, samples=len(means)
        )


def straight_line(x: pl.Series, y: pl.Series) -> tuple[float, float]:
    """Return slope and R^2 of the least-squares line through y by x; R^2 is 0 where y does not vary."""
    x, y = x.to_numpy().astype(float), y.to_numpy().astype(float)
    slope, intercept = np.polyfit(x, y, 1)
    residual, total = ((y - slope * x - intercept) ** 2).sum(), ((y - y.mean()) ** 2).sum()
    return float(slope), float(1 - residual / total) if total > 0 else 0.0
