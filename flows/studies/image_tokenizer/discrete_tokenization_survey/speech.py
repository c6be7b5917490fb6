"""The speech codec of the survey: blocks of log-mel frames of spoken digits, whatever quantizer stands in the middle.

In one seed every arm starts from the same encoder and decoder and sees the same blocks in the same order.
"""

from __future__ import annotations

import json
import time
from typing import Any

import polars as pl
import torch
from torch import Tensor, nn

from components.analysis.gradient_flow import ArrivingGradient
from components.bases import construct, load_model, save_model, specification
from components.data import fsdd, tables
from components.errors import TesseraError
from components.metrics.audio import log_spectral_distance
from components.metrics.codebook import entropy_bits_per_index, joint_entropy_bits, usage_per_index
from components.metrics.tables import MetricTable, write_parquet
from components.quantizers.additive import jointly_nearest
from components.quantizers.projected import ProjectedQuantizer, unprojected
from components.quantizers.quantized import QuantizerModule
from components.quantizers.rvq import ResidualQuantizer
from components.tokenizers.audio.log_mel import LogMel
from components.tokenizers.audio.mel_blocks import MelBlockTokenizer, cut_blocks
from components.training.determinism import derive_seed
from components.training.loop import Optimisation, fit
from flows.studies.context import StageContext
from flows.studies.image_tokenizer.models import described

_START, _SAME_START = 3, 4  # streams of the codebooks' start and of the weights that arms share
_UNITS = {"loss": "", "block_error": "", "quantizer_loss": "", "kept": "codebooks", "encoder_gradient": ""}
_TOKENIZER = "components.tokenizers.audio.mel_blocks"


def train(stage: StageContext) -> None:
    """Train the codec of one arm; write its model and curves."""
    params = stage.params
    blocks = torch.cat([blocks for _, blocks in recordings(stage, "train", params.train_recordings)])
    description = codec_description(params)
    model = construct(description)
    share_start(model, params, stage.seed)
    model.fit_scale(blocks)
    if params.start_blocks:
        generator = torch.Generator().manual_seed(derive_seed(stage.seed, _START))
        rows = torch.randperm(len(blocks), generator=generator)[: params.start_blocks]
        model.start_from(blocks[rows], generator)
    arriving = ArrivingGradient(model.encoder)

    def draw_batch(step: int, generator: torch.Generator) -> tuple[Tensor, int]:
        rows = torch.randint(len(blocks), (params.batch_size,), generator=generator)
        return blocks[rows], model.draw_step(generator)

    def loss(model: nn.Module, batch: tuple[Tensor, int], _: torch.Generator) -> tuple[Tensor, dict]:
        result = model(*batch)
        error = (result.blocks - model.scaled(batch[0])).square().mean()
        series = {
            "block_error": error,
            "quantizer_loss": result.codes.loss,
            "kept": float(result.kept),
            "encoder_gradient": arriving.record(),
        }
        return error + params.quantizer_weight * result.codes.loss, series

    curves = fit(
        model,
        draw_batch,
        loss,
        Optimisation(
            steps=params.steps,
            learning_rate=params.learning_rate,
            warmup_steps=params.warmup_steps,
            final_fraction=params.final_fraction,
            weight_decay=params.weight_decay,
            gradient_clip=params.gradient_clip,
            ema_decay=params.weight_ema_decay,
        ),
        seed=stage.seed,
        device=stage.device,
        checkpoint=stage.checkpoint,
        progress=stage.progress,
        after_step=lambda model, step, generator: model.after_step(step, generator),
        units=_UNITS,
    )
    arriving.close()
    save_model(stage.output, model, description)
    curves.write(stage.output)


def recordings(stage: StageContext, split: str, count: int) -> list[tuple[str, Tensor]]:
    """Return name and blocks (B, R, M), dB, of recordings that are spread evenly over a split.

    Raises:
        TesseraError: The stage was given no such data set.
    """
    params = stage.params
    directory = stage.inputs.get(f"data/{params.speech_dataset}")
    if directory is None:
        raise TesseraError(
            f"The speech task reads data set {params.speech_dataset!r}; name it under 'data' of the variant or profile."
        )
    frame = tables.read_split(directory, split)
    # Rows stand by speaker: the first of them would be one speaker's.
    frame = frame.gather_every(max(1, len(frame) // count)).head(count)
    spectra = LogMel(sample_rate=fsdd.SAMPLE_RATE, bands=params.bands, hop=params.hop)
    blocks = [cut_blocks(spectra(waveform), params.block_frames) for waveform in fsdd.waveforms(frame["audio"])]
    return [(name, part) for name, part in zip(fsdd.names(frame), blocks, strict=True) if len(part)]


def codec_description(params) -> dict[str, Any]:
    """Return the description (components.bases) of the codec: blocks, linear maps, quantizer."""
    parts = {"base": described(f"components.quantizers.{params.base}", params, {})} if params.base else {}
    quantizer = described(f"components.quantizers.{params.quantizer}", params, parts)
    projected = specification("components.quantizers.projected", base=quantizer, width=params.latent_dim)
    return described(_TOKENIZER, params, {"quantizer": projected})


def share_start(model: MelBlockTokenizer, params, seed: int) -> None:
    """Give encoder and decoder the weights that every arm of this seed starts from."""
    unquantized = specification("components.quantizers.unquantized", code_dim=params.latent_dim)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, _SAME_START))
        reference = construct(described(_TOKENIZER, params, {"quantizer": unquantized, "drop": "none"}))
    model.encoder.load_state_dict(reference.encoder.state_dict())
    model.decoder.load_state_dict(reference.decoder.state_dict())


@torch.no_grad()
def evaluate(stage: StageContext) -> None:
    """Measure one arm on recordings that no training saw, and keep spectra for the figure."""
    params, table = stage.params, MetricTable()
    test = recordings(stage, "test", params.test_recordings)
    names, originals = [name for name, _ in test], [blocks for _, blocks in test]
    sizes = [len(blocks) for blocks in originals]
    together = torch.cat(originals).to(stage.device)
    if params.speech_control:
        learned = torch.cat([blocks for _, blocks in recordings(stage, "train", params.train_recordings)])
        decoded = learned.flatten(0, 1).mean(0).to(stage.device).expand_as(together)
    else:
        decoded = _coded(stage, table, together)
    distances = log_spectral_distance(decoded, together).mean(1).split(sizes)
    table.add_items("lsd", [float(part.mean()) for part in distances], unit="dB", items=names)
    table.write(stage.output)
    _keep_spectra(stage, names, originals, decoded.cpu().split(sizes))


def _coded(stage: StageContext, table: MetricTable, blocks: Tensor) -> Tensor:
    """Code and decode blocks (B, R, M), and measure what the codes carry."""
    model = load_model(stage.inputs["train"]).to(stage.device)
    latents = model.latents(blocks)
    if not model.codebook_sizes:
        return model.decode_values(latents)
    began = time.perf_counter()
    indices = model.encode(blocks)
    timing = {"encode_seconds": time.perf_counter() - began, "blocks": len(blocks)}
    (stage.log / "timings.json").write_text(json.dumps(timing) + "\n")
    quantizer = unprojected(model.quantizer)
    columns, sizes = index_columns(quantizer, indices.cpu())
    entropies = entropy_bits_per_index(columns)
    count = len(columns)
    table.add("block_bits", quantizer.bits_per_vector, unit="bits", samples=1)
    table.add("block_entropy", joint_entropy_bits(columns), unit="bits", samples=count)
    table.add("index_usage", float(usage_per_index(columns, sizes).mean()), unit="share", samples=count)
    shares = entropies.exp2() / torch.tensor(sizes, dtype=torch.float64)
    table.add("index_perplexity", float(shares.mean()), unit="share", samples=count)
    if isinstance(quantizer, ResidualQuantizer):
        vectors = model.quantizer.inward(latents) if isinstance(model.quantizer, ProjectedQuantizer) else latents
        for search, error in latent_errors(quantizer, vectors, stage.params.beam_width).items():
            table.add("latent_error", error, unit="", at={"search": search}, samples=count)
    return model.decode(indices)


def index_columns(quantizer: QuantizerModule, indices: Tensor) -> tuple[Tensor, tuple[int, ...]]:
    """Return indices (N, J) and the number of values of each: digits where one index stands for many dimensions.

    Few vectors cannot show more codes than they are, so that the use of 2^24 codes is told by dimension.
    """
    if quantizer.indices_have_an_axis:
        return indices, quantizer.codebook_sizes
    if hasattr(quantizer, "digits"):
        return quantizer.digits(indices), tuple(quantizer.places.sizes.tolist())
    return indices.unsqueeze(-1), quantizer.codebook_sizes


def latent_errors(quantizer: ResidualQuantizer, vectors: Tensor, beam_width: int) -> dict[str, float]:
    """Return ||z - q||^2, mean over vectors (N, D), with the same codebooks one after the other and jointly."""
    books = [codebook.weight for codebook in quantizer.codebooks]
    chosen = {
        "greedy": ResidualQuantizer.forward(quantizer, vectors).indices,
        "joint": jointly_nearest(vectors, books, beam_width),
    }
    return {
        search: float((vectors - quantizer.decode(indices)).square().sum(-1).mean())
        for search, indices in chosen.items()
    }


def _keep_spectra(stage: StageContext, names: list[str], originals: list[Tensor], decoded: list[Tensor]) -> None:
    """Write `spectra.parquet` with columns recording, kind (original, decoded), frame and bands (dB)."""
    rows = []
    for name, one, other in list(zip(names, originals, decoded, strict=True))[: stage.params.sample_recordings]:
        for kind, blocks in (("original", one), ("decoded", other)):
            rows += [(name, kind, frame, bands) for frame, bands in enumerate(blocks.flatten(0, 1).tolist())]
    schema = {"recording": pl.String, "kind": pl.String, "frame": pl.Int64, "bands": pl.List(pl.Float32)}
    write_parquet(pl.DataFrame(rows, schema=schema, orient="row"), stage.output / "spectra.parquet")
