"""A workspace with judged papers, made from synthetic runs, and its ledger."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import yaml

from components.metrics.tables import CurveTable, MetricTable
from flows.declarations.workspace import Workspace
from flows.ledger.hashes import directory_md5
from flows.ledger.judge import judge
from flows.ledger.page import build
from flows.ledger.recording import record
from flows.ledger.verified import Verification
from flows.ledger.verified import write as write_verification
from flows.studies.context import JudgeContext

ROOT = Path(__file__).parents[2]
KEPT = (1, 2, 4, 8, 16, 32)
COMMIT = "3f2c9a1b7d5e4f60718293a4b5c6d7e8f9012345"
CODE = "c0de" * 8

LEADERBOARDS = """
scenes:
  title: Tokenizers on generated scenes
  says: The same images for every paper.
  study: image-tokenizer
  data: shapes
  where: {image_side: 32}
  same: [steps]
  rate: {says: code length over pixels, unit: bits/pixel, formula: k * log2(codebook_size) / image_side ** 2}
  metrics: [psnr]
nobody:
  title: What nobody ran
  study: image-tokenizer
  data: cifar10
  metrics: [ssim]
"""

PREFIX_IMAGES = """
slug: prefix-images
title: "Prefix Images: a Tokenizer Whose Every Prefix Decodes <em>& Its Limits</em>"
family: image
study: image-tokenizer
reference: someone/prefix-images
story: >-
  A tokenizer that loses the tail of its tokens at random during training puts what matters first, so that one model is
  a dial for quality. On small pictures the head carries most of the signal, as claimed; the price at full length is
  larger than the paper's, because our decoder is small and sees each length only a fraction of the time.
seeds: [0, 1, 2]
variants:
  shapes: {canonical: true, data: [shapes], says: "Generated 32-pixel scenes, 2,000 held out."}
  photos: {demo: true, seeds: [0], arms: [tail_drop, no_drop]}
arms:
  tail_drop: {says: "the method: a random tail is removed from every batch"}
  no_drop: {says: "the same tokenizer, always at full length"}
  drop_pow2: {says: "lengths drawn from powers of two only"}
  jpeg: {says: "Pillow at the largest payload that fits", trained: false, seeds: [0]}
profiles:
  smoke: {}
  small: {minutes: 18}
  full: {needs: "ImageNet at 256 pixels and eight accelerators"}
claims:
  - id: head-concentration
    says: Random truncation moves the important information to the first tokens, so that any prefix decodes
    cites: Section 4.1, Figure 5
    scope: small
    tests:
      - {metric: psnr, arm: tail_drop, minus: no_drop, at: {k: 8}, above: 1.5, also: every seed, seed_bar: 2.0}
      - {metric: psnr, arm: tail_drop, along: k, values: [1, 2, 4, 8, 16, 32], direction: increasing, tolerance: 0.05}
  - id: full-length-parity
    says: Variable length costs at most one decibel at full length
    cites: Table 2
    scope: small
    tests:
      - {metric: psnr, arm: no_drop, minus: tail_drop, at: {k: 32}, below: 1.0, note: "The bar is the paper's."}
  - id: contribution-decay
    says: The contribution of a token falls with its position only when tails are dropped
    cites: Figure 7
    scope: small
    tests:
      - {metric: contribution, arm: tail_drop, along: position, below: -0.7}
      - {metric: contribution, arm: no_drop, along: position, above: -0.4}
  - id: beats-jpeg
    says: At equal bytes the tokenizer beats JPEG in at least two of three budgets
    cites: Section 5.2, Table 4
    scope: small
    join: {k_of_n: 2}
    gates:
      - {metric: psnr, arm: no_drop, at: {k: 32}, above: 17.6, also: every seed}
    tests:
      - says: 576 bytes
        all_of:
          - {metric: photo_psnr, arm: tail_drop, minus: jpeg, at: {bytes: 576}, above: 0}
          - {metric: photo_ms_ssim, arm: tail_drop, minus: jpeg, at: {bytes: 576}, above: 0}
      - says: 1,152 bytes
        all_of:
          - {metric: photo_psnr, arm: tail_drop, minus: jpeg, at: {bytes: 1152}, above: 0}
          - {metric: photo_ms_ssim, arm: tail_drop, minus: jpeg, at: {bytes: 1152}, above: 0}
      - says: 2,304 bytes
        all_of:
          - {metric: photo_psnr, arm: tail_drop, minus: jpeg, at: {bytes: 2304}, above: 0}
          - {metric: photo_ms_ssim, arm: tail_drop, minus: jpeg, at: {bytes: 2304}, above: 0}
  - id: generation
    says: A masked generator on these tokens reaches a Frechet distance below 2.7 on ImageNet
    cites: Table 6
    scope: full-only
    needs: ImageNet at 256 pixels, eight accelerators for some days, and the Inception features.
    tests:
      - {metric: gfid, arm: tail_drop, below: 2.7}
deviations:
  - {what: One training stage instead of two, why: The proxy codes need a teacher that does not exist at 32 pixels.}
  - {what: No adversarial loss, why: It does not change where information is stored.}
history:
  - {date: 2026-11-20, what: "The gate rose from 17.0 to 17.6 dB", why: "The mean of each patch alone reaches 17.6."}
"""

RIVAL_IMAGES = """
slug: rival-images
title: Another Tokenizer on the Same Images
family: image
study: image-tokenizer
story: The same images, the same budget, one decibel more.
seeds: [0, 1, 2]
variants: {scenes: {canonical: true, data: [shapes]}}
arms:
  rival: {says: the rival}
  twin: {says: as good as the first}
profiles: {smoke: {}, small: {minutes: 5}, full: {needs: a cluster}}
claims:
  - {id: better, says: It is better than its twin, cites: Table 1, scope: small, tests: [
      {metric: psnr, arm: rival, minus: twin, at: {k: 8}, above: 5}]}
"""

CHAIN_BIAS = """
slug: chain-bias
title: "Bias of Tokenized Prompts on a Markov Chain"
family: text
study: decoding
story: Tokens leak what follows. Summing over covering tokens removes it exactly.
seeds: [0, 1, 2, 3, 4]
variants:
  chain: {canonical: true}
arms:
  corrected: {says: the corrected conditional}
  direct: {says: "the next token's first character"}
  exact: {says: infinite data, trained: false, seeds: [0]}
profiles: {smoke: {}, small: {minutes: 7}, full: {needs: a cluster}}
claims:
  - {id: recovers, says: The correction recovers the chain, cites: Figure 3, scope: small, tests: [
      {metric: mae, arm: corrected, below: 0.02},
      {metric: mae, arm: direct, times: corrected, above: 5, also: every seed}]}
  - {id: exact-is-exact, says: With infinite data nothing remains, cites: Lemma 2, scope: small, tests: [
      {metric: mae, arm: exact, below: 1.0e-9}]}
"""

WAITING = """
slug: waiting-paper
title: A Paper Declared but Not Run
family: audio
study: audio-tokenizer
story: Nothing has come out yet.
seeds: [0, 1, 2]
variants: {speech: {canonical: true}}
arms: {codec: {says: the codec}}
profiles: {smoke: {}, small: {}, full: {needs: a cluster}}
claims:
  - {id: quality, says: It sounds good, cites: Table 1, scope: small, tests: [{metric: pesq, arm: codec, above: 3}]}
"""


def fill_images(table: MetricTable, arm: str, seed: int) -> None:
    """Qualities that rise with the number of tokens kept, on images that all arms share."""
    rng = np.random.default_rng([seed, len(arm)])
    images = np.random.default_rng(1).standard_normal(60)
    shape = {"tail_drop": (13.5, 1.0), "no_drop": (9.0, 2.0), "drop_pow2": (13.2, 0.95), "jpeg": (12.0, 1.2)}[arm]
    kept = 0.05 * rng.standard_normal()
    for k in KEPT:
        quality = shape[0] + shape[1] * np.log2(k) + kept
        table.add_items("psnr", quality + images + 0.3 * rng.standard_normal(60), unit="dB", at={"k": k})
        table.add("fd", 60 / (1 + np.log2(k)) + rng.standard_normal(), unit="", at={"k": k}, samples=5000)
    if arm != "jpeg":
        for position in range(16):
            slope = 8.0 - 0.45 * position if arm == "tail_drop" else 4.0
            table.add("contribution", slope + rng.standard_normal(), unit="", at={"position": position}, samples=200)
    photos = np.random.default_rng(2).standard_normal(8)
    for payload, gain in ((576, 2.2), (1152, 0.9), (2304, -1.6)):
        own = (gain if arm == "tail_drop" else 0.0) + 0.2 * rng.standard_normal(8)
        table.add_items("photo_psnr", 20 + photos + own, unit="dB", at={"bytes": payload})
        table.add_items("photo_ms_ssim", 0.8 + 0.02 * own, unit="", at={"bytes": payload})


def fill_rival(table: MetricTable, arm: str, seed: int) -> None:
    """A decibel more on the very images of the other paper, or nothing more."""
    rng = np.random.default_rng([seed, len(arm), 7])
    images = np.random.default_rng(1).standard_normal(60)
    gain = 1.0 if arm == "rival" else 0.0
    for k in KEPT:
        values = 13.5 + np.log2(k) + gain + images + 0.02 * rng.standard_normal() + 0.1 * rng.standard_normal(60)
        table.add_items("psnr", values, unit="dB", at={"k": k})


def fill_chain(table: MetricTable, arm: str, seed: int) -> None:
    """Errors of the estimated transition probabilities."""
    rng = np.random.default_rng([seed, len(arm)])
    value = {"corrected": 0.011 + 0.001 * rng.standard_normal(), "direct": 0.21 + 0.02 * rng.standard_normal()}
    table.add("mae", value.get(arm, 3e-16), unit="probability", samples=1600)


def add_results(root: Path, slug: str, variant: str, fill, *, figures: bool = False) -> None:
    """Run every arm and seed of a variant synthetically, judge it and lock it."""
    paper = Workspace.load(root).paper(slug)
    evaluations, trainings = {}, {}
    for arm, declared in paper.arms_of(variant).items():
        for seed in paper.seeds_of(variant, arm):
            table = MetricTable()
            fill(table, arm, seed)
            for kind, runs in (("evaluate", evaluations), ("train", trainings)):
                if kind == "train" and not declared.trains:
                    continue
                run = root / "runs" / slug / variant / kind / arm / f"s{seed}" / "run"
                run.mkdir(parents=True)
                if kind == "evaluate":
                    table.write(run)
                else:
                    curves = CurveTable()
                    noise = np.random.default_rng([seed, len(arm)])
                    for step in range(0, 5000, 10):
                        curves.add("loss", step, 0.02 + 0.2 * np.exp(-step / 900) + 0.003 * noise.standard_normal())
                    curves.write(run)
                runs[arm, seed] = run
                log = run.parent / "log"
                log.mkdir()
                machine = {"processor": "AMD EPYC 7B13", "cores": 2, "memory_gib": 8.0, "class": "avx2"}
                environment = {
                    "wall_seconds": 9.0 if kind == "evaluate" else 174.0,
                    "cpu_seconds": 8.0,
                    "peak_memory_bytes": 3 << 29,
                    "ended": "2026-11-24T10:00:00+00:00",
                    "machine": machine,
                }
                (log / "environment.json").write_text(json.dumps(environment))
    output = root / "results" / slug / variant
    output.mkdir(parents=True)
    judge(
        JudgeContext(paper, variant, "small", evaluations, trainings, output),
        {"git_commit": COMMIT, "machine": {}},
        draw if figures else None,
    )
    record(Workspace.load(root), paper, output, "2026-11-24")
    lock(root, slug, variant, [*trainings.values(), *evaluations.values()])


def draw(stage: JudgeContext) -> None:
    """Draw two figures with captions in their metadata."""
    matplotlib.use("svg")
    from matplotlib import pyplot

    matplotlib.rcParams["svg.hashsalt"] = "tessera"
    (stage.output / "figures").mkdir()
    for name, caption in (("quality", "Quality over tokens kept"), ("contribution", "Contribution by position")):
        figure, axes = pyplot.subplots(figsize=(5, 3.2))
        for arm, (start, slope) in {"tail_drop": (13.5, 1.0), "no_drop": (9.0, 2.0)}.items():
            axes.plot(KEPT, start + slope * np.log2(KEPT), marker="o", label=arm)
        axes.set_xlabel("tokens kept")
        axes.set_ylabel("PSNR (dB)")
        axes.legend()
        figure.tight_layout()
        metadata = {"Title": f"{caption}, mean over 3 seeds", "Description": f"Line chart: {caption}.", "Date": None}
        figure.savefig(stage.output / "figures" / f"{name}.svg", metadata=metadata)
        pyplot.close(figure)


def lock(root: Path, slug: str, variant: str, runs: list[Path]) -> None:
    """Write dvc.lock and digests.json as they stand after a clean run."""
    stages, digests = {}, {}
    for run in runs:
        kind, arm, seed = run.parts[-4:-1]
        unit = f"{variant}-{kind}-{arm}"
        digests[unit] = {"code": CODE, "params": {"steps": 5000, "learning_rate": 1.5e-3}}
        stages[f"{unit}-{seed}"] = {
            "cmd": f"python -m flows.stage {kind} {slug} {variant} {arm} {seed[1:]}",
            "params": {
                f"params/{slug}/digests.json": {f"{unit}.{part}": digests[unit][part] for part in ("code", "params")}
            },
            "outs": [{"path": str(run.relative_to(root)), "hash": "md5", "md5": directory_md5(run)}],
        }
    folder = root / "params" / slug
    (folder / "dvc.lock").write_text(yaml.safe_dump({"schema": "2.0", "stages": stages}, sort_keys=False))
    (folder / "digests.json").write_text(json.dumps(digests))


def make_workspace(root: Path, catalogue: dict | None = None) -> Path:
    """Write declarations and results of three papers below `root`."""
    for text in (PREFIX_IMAGES, RIVAL_IMAGES, CHAIN_BIAS, WAITING):
        slug = yaml.safe_load(text)["slug"]
        folder = root / "params" / slug
        folder.mkdir(parents=True)
        (folder / "paper.yaml").write_text(textwrap.dedent(text))
    (root / "dvc.yaml").write_text("stages: {}\n")
    (root / "params" / "leaderboards.yaml").write_text(LEADERBOARDS)
    source = "components/quantizers/vq.py"
    (root / source).parent.mkdir(parents=True)
    (root / source).write_bytes((ROOT / source).read_bytes())
    lines = [f"digest {CODE} 0a 0b", "module 0a components.quantizers.vq f=1", "module 0b components.gone g=2"]
    (root / "params" / "code.lock").write_text("\n".join(lines))
    (root / "params" / "schema").mkdir()
    for schema in (ROOT / "params" / "schema").glob("*.schema.json"):
        (root / "params" / "schema" / schema.name).write_bytes(schema.read_bytes())
    families = ["text", "language", "representations", "diffusion", "image", "audio", "multimodal"]
    unbuilt = {
        f"unbuilt-{index}": {
            "title": f"An Unbuilt Paper, Number {index}",
            "family": families[index % 7],
            "kind": "method",
            "study": "image-tokenizer" if index % 2 else "language-model",
        }
        for index in range(20)
    }
    built = {
        "prefix-images": {"title": "Prefix Images", "family": "image", "kind": "method", "study": "image-tokenizer"},
        "waiting-paper": {
            "title": "A Paper Declared but Not Run",
            "family": "audio",
            "kind": "report",
            "study": "audio-tokenizer",
        },
    }
    entries = {**(catalogue or unbuilt), **built}
    (root / "params" / "catalogue.yaml").write_text(yaml.safe_dump(entries, sort_keys=False))
    add_results(root, "prefix-images", "shapes", fill_images, figures=True)
    add_results(root, "rival-images", "scenes", fill_rival)
    add_results(root, "chain-bias", "chain", fill_chain)
    verification = Verification(
        "2026-11-26", "confirmed", "bit-exact", COMMIT, COMMIT, "every value is equal", metrics=300
    )
    write_verification(root, "prefix-images", "shapes", verification)
    return root


@pytest.fixture(scope="session")
def workspace(tmp_path_factory) -> Path:
    """A workspace nobody changes."""
    return make_workspace(tmp_path_factory.mktemp("workspace"))


@pytest.fixture(scope="session")
def site(workspace: Path, tmp_path_factory) -> Path:
    """Its ledger."""
    site = tmp_path_factory.mktemp("ledger") / "site"
    build(workspace, site)
    return site
