"""What stands ready before an arm begins: the prompts, their plain continuations, a matrix from other prompts.

No network is trained. These are made once per seed, so that no arm spends time on what all arms share.
"""

from __future__ import annotations

from pathlib import Path

import polars as pl
from safetensors.torch import load_file, save_file
from torch import Tensor

from components.language.fill_in_middle import END
from components.language.pretrained import LanguageModel
from components.language.speculative.decoding import decode
from components.metrics.tables import write_parquet
from flows.studies.context import StageContext
from flows.studies.decoding.token_recycling import prompts
from flows.studies.decoding.token_recycling.params import TrainParams
from flows.studies.decoding.token_recycling.prompts import Prompt

PROMPTS, SETS = "prompts.parquet", "sets.parquet"
PROMPT_SCHEMA = {
    "model": pl.String,
    "set": pl.String,
    "name": pl.Int64,
    "tokens": pl.List(pl.Int64),
    "noise": pl.Int64,
    "plain": pl.List(pl.Int64),
    "plain_float64": pl.List(pl.Int64),
}
SET_SCHEMA = {"model": pl.String, "looked_at": pl.Int64, "qualified": pl.Int64, "coupled": pl.Boolean}


def train(stage: StageContext) -> None:
    """Write the prompts of the stage's seed and, where the arm starts warm, the matrices left by another seed's."""
    params: TrainParams = stage.params
    rows, sets = [], []
    for done, model in enumerate(params.models):
        stage.progress(done, len(params.models))
        language = prompts.load(stage, model)
        if params.warm_matrix:
            path = stage.output / _matrix_file(model)
            save_file({"table": _left_by_another_set(stage, model, language)}, path)
        own = prompts.prompt_set(stage, model, language, stage.seed)
        sets.append((model, own.looked_at, own.qualified, own.coupled))
        for kind, chosen in (("judged", own.judged), ("unfiltered", own.unfiltered)):
            single = prompts.plain(language, chosen, params)
            double = [None] * len(chosen)
            if kind == "judged":
                language.model.double()
                double = prompts.plain(language, chosen, params)
                language.model.float()
            rows += [
                (model, kind, prompt.name, prompt.tokens, prompt.noise, *plain)
                for prompt, *plain in zip(chosen, single, double, strict=True)
            ]
    write_parquet(pl.DataFrame(rows, schema=PROMPT_SCHEMA, orient="row"), stage.output / PROMPTS)
    write_parquet(pl.DataFrame(sets, schema=SET_SCHEMA, orient="row"), stage.output / SETS)


def _left_by_another_set(stage: StageContext, model: str, language: LanguageModel) -> Tensor:
    """Return the matrix as the method leaves it after the judged prompts of the next seed."""
    from components.language.speculative import adjacency

    params: TrainParams = stage.params
    others = [seed for seed in params.prompt_seeds if seed != stage.seed]
    other = min((seed for seed in others if seed > stage.seed), default=min(others))
    drafter = adjacency.build(language.model.vocabulary_size, stage.device)
    for prompt in prompts.prompt_set(stage, model, language, other).judged:
        decode(
            language.model,
            prompt.tokens,
            params.new_tokens,
            drafter,
            prompts.rule(prompt, language.model, params),
            language.specials[END],
        )
    return drafter.matrix.table.cpu()


def read_prompts(directory: Path, model: str, kind: str) -> list[tuple[Prompt, list[int], list[int] | None]]:
    """Return the prompts of a model, each with its plain continuation in single and, if judged, in double precision.

    Args:
        directory: What `train` wrote.
        model: "code" or "math".
        kind: "judged" or "unfiltered".
    """
    frame = pl.read_parquet(directory / PROMPTS).filter(pl.col("model") == model, pl.col("set") == kind)
    return [
        (Prompt(row["name"], row["tokens"], row["noise"]), row["plain"], row["plain_float64"])
        for row in frame.iter_rows(named=True)
    ]


def read_matrix(directory: Path, model: str) -> Tensor:
    """Return the adjacency matrix that `train` wrote for a model, (V, k) int32."""
    return load_file(directory / _matrix_file(model))["table"]


def _matrix_file(model: str) -> str:
    return f"adjacency-{model}.safetensors"
