"""Recipe of the masked diffusion translators that decoding papers share."""

from __future__ import annotations

import torch

from components.bases import construct, save_base
from components.metrics.tables import MetricTable
from components.metrics.text_generation import bleu_counts, bleu_of, chrf, corpus_influence
from components.training.determinism import derive_seed
from flows.studies.context import StageContext
from flows.studies.discrete_diffusion import models
from flows.studies.discrete_diffusion.decoders import Decoder, Setting
from flows.studies.discrete_diffusion.params import EvaluateParams
from flows.studies.discrete_diffusion.sources import LONGEST_TARGET, TOKENIZER_FILE, Translations
from flows.studies.discrete_diffusion.train import fit_denoiser

_WEIGHTS, _DRAWS = 1, 2  # random streams of this stage


def train(stage: StageContext) -> None:
    """Train a translator, measure it on validation sentences with the right and with wrong sources, and describe it."""
    params = stage.params
    directory = stage.inputs["data/multi30k"]
    task = Translations.learn(directory, params.vocabulary_size, params.context)
    shared = {name: getattr(params, name) for name in params.model_fields if name in EvaluateParams.model_fields}
    shared["decode_steps"] = (params.decode_steps,)
    denoising = EvaluateParams(task="translation", **shared)
    description = models.describe(denoising, task.words)
    torch.manual_seed(derive_seed(stage.seed, _WEIGHTS))
    model = construct(description)
    training = task.examples("train")
    curves = fit_denoiser(stage, denoising, model, training.items)

    test = task.examples("validation", params.test_sentences)
    decoder = Decoder(models.Decodable(model, task), denoising, derive_seed(stage.seed, _DRAWS))
    setting = Setting(params.decode_steps)
    table, scores = MetricTable(), {}
    for metric, source in (("bleu", None), ("bleu_wrong_source", test.items.source[test.wrong])):
        outputs = decoder.decode(setting, test, source).tokens.tolist()
        said = [task.text(output) for output in outputs]
        rows = corpus_influence(bleu_of, bleu_counts(said, test.truth))
        scores[metric] = float(rows.mean())
        table.add_items(metric, rows, unit="percent", items=test.names)
        if source is None:
            joined = ([" ".join(words) for words in side] for side in (said, test.truth))
            scores["chrf"] = chrf(*joined)
            table.add("chrf", scores["chrf"], unit="percent", samples=len(test))
    margin = scores["bleu"] - scores["bleu_wrong_source"]
    table.add("above_wrong_source", margin, unit="percent", samples=len(test))
    table.write(stage.output)
    curves.write(stage.output)
    task.tokenizer.save(stage.output / TOKENIZER_FILE)
    save_base(stage.output, model, description, _card(stage, model, scores, len(training), len(test)))


def _card(stage: StageContext, model: torch.nn.Module, scores: dict[str, float], trained: int, tested: int) -> str:
    params = stage.params
    count = sum(parameter.numel() for parameter in model.parameters())
    return f"""# {stage.paper}

A masked diffusion translator from German to English descriptions of pictures: encoder-decoder,
{params.encoder_layers} + {params.decoder_layers} layers, width {params.width}, {model.words:,} joint byte pairs,
{count:,} parameters.

- Trained on: the {trained:,} training pairs of Multi30k (lower-cased) whose target has at most {LONGEST_TARGET} tokens,
  {params.steps:,} steps of {params.batch}, AdamW {params.learning_rate:g}, weights averaged with {params.ema_decay:g},
  linear schedule of {params.diffusion_steps} steps, loss weight 1 - (t - 1)/T, seed {stage.seed}.
- {tested:,} validation sentences, true lengths, {params.decode_steps} steps of confidence routing: BLEU
  {scores["bleu"]:.2f}, chrF {scores["chrf"]:.2f}; with the source of another sentence BLEU
  {scores["bleu_wrong_source"]:.2f}.
- Use: decoding studies of masked diffusion. Ids from {model.words} on are the mask, padding and the start.
- Not for: translating anything that anyone should read.

```python
from components.bases import load_base
from components.tokenizers.text import bpe

translator = load_base("{stage.paper}")
tokenizer = bpe.load("bases/{stage.paper}/tokenizer.json")
```
"""
