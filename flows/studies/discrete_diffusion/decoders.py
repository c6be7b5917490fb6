"""The decoders of the study: one setting each, the candidates of an arm, and the choice on validation inputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from components.diffusion.objectives import noise_of
from components.diffusion.samplers import Routing, Sampled, sample_ancestral, sample_committing, sample_routed
from components.diffusion.sequence_denoiser import best_of_lengths
from components.training.determinism import derive_seed
from flows.studies.discrete_diffusion.models import Decodable, grid_of
from flows.studies.discrete_diffusion.params import EvaluateParams
from flows.studies.discrete_diffusion.sources import Examples

_BATCH = 256


@dataclass(frozen=True)
class Setting:
    """One way to decode.

    Attributes:
        steps: M.
        decay: Of routed decoding and of masks predicted again.
        conditional: Rule of routed decoding.
        randomness: On confidences of routed decoding.
        offset: How far the coins of the posterior run ahead.
        temperature: Of predictions.
    """

    steps: int
    decay: str = "linear"
    conditional: bool = False
    randomness: float = 0.0
    offset: int = 0
    temperature: float = 0.0


class Decoder:
    """Decodes inputs by one setting after another.

    Args:
        decodable: Network and task.
        params: Which decoder it is, and the process.
        seed: Seed of all draws; another setting or set of inputs has other draws.
    """

    def __init__(self, decodable: Decodable, params: EvaluateParams, seed: int) -> None:
        self.model, self.task = decodable.model, decodable.task
        self.params, self.seed = params, seed
        self.grid = grid_of(params)
        self.noise = noise_of(params.noise, self.model)

    def candidates(self, steps: int) -> list[Setting]:
        """Return the settings that an arm may choose from at a number of steps."""
        params = self.params
        plain = Setting(steps, conditional=params.conditional, randomness=params.randomness)
        if params.decoder == "routed":
            return [replace(plain, decay=decay) for decay in params.decays]
        if params.decoder == "ancestral":
            return [replace(plain, offset=offset) for offset in params.offsets]
        return [plain]

    def chosen(self, steps: int, validation: Examples) -> Setting:
        """Return the candidate that scores best on validation inputs; of equals the first."""
        settings = self.candidates(steps)
        if len(settings) == 1:
            return settings[0]
        scores = [self.task.score(self.decode(setting, validation).tokens, validation) for setting in settings]
        return settings[max(range(len(settings)), key=scores.__getitem__)]

    def decode(self, setting: Setting, examples: Examples, source: Tensor | None = None) -> Sampled:
        """Write targets of the true lengths.

        Args:
            setting: How.
            examples: Inputs.
            source: Sources instead of the inputs' own, (B, S).
        """
        source = examples.items.source if source is None else source
        parts = [
            self._sample(setting, sources, lengths, part, int(examples.lengths.max()))
            for part, (sources, lengths) in enumerate(
                zip(source.split(_BATCH), examples.lengths.split(_BATCH), strict=True)
            )
        ]
        return joined(parts)

    def decode_predicted_lengths(self, setting: Setting, examples: Examples) -> Sampled:
        """Write targets whose length is the best of several predicted ones."""
        device = self.model.network.embedding.weight.device
        context = self.model.network.context
        parts = []
        for part, sources in enumerate(examples.items.source.split(_BATCH // self.params.length_beam)):

            def sample(source: Tensor, lengths: Tensor, part: int = part) -> Sampled:
                return self._sample(setting, source, lengths, part, context)

            parts.append(best_of_lengths(sample, self.model, sources.to(device), self.params.length_beam))
        return joined(parts)

    @torch.no_grad()
    def _sample(self, setting: Setting, source: Tensor, lengths: Tensor, part: int, width: int) -> Sampled:
        model, params = self.model, self.params
        device = model.network.embedding.weight.device
        source, lengths = source.to(device), lengths.to(device)
        generator = torch.Generator().manual_seed(derive_seed(self.seed, setting.steps, part))
        if params.decoder == "left_to_right":
            # It is told no length; the end is one more position.
            return model.continue_greedily(source, model.network.context - 1)
        blank, generated = model.blank(lengths, width)
        denoiser = model.bound_to(source, lengths)
        if params.decoder == "ancestral":
            return sample_ancestral(
                denoiser, blank, generated, self.noise, self.grid, setting.steps, generator,
                temperature=setting.temperature, offset=setting.offset,
            )  # fmt: skip
        if params.decoder == "mask_predict":
            return sample_committing(
                denoiser, blank, generated, self.noise, setting.steps, generator,
                revisable=True, temperature=setting.temperature,
            )  # fmt: skip
        routing = Routing(setting.decay, setting.conditional, setting.randomness)
        return sample_routed(
            denoiser, blank, generated, self.noise, self.grid, setting.steps, generator,
            routing=routing, temperature=setting.temperature,
        )  # fmt: skip


def joined(parts: Sequence[Sampled]) -> Sampled:
    """Return the outputs of several batches as one, on the CPU."""
    fields = ("tokens", "scores", "calls", "positions")
    return Sampled(*(torch.cat([getattr(part, field).cpu() for part in parts]) for field in fields))
