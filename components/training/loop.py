"""The training loop: one loop for every model, exact under a kill and a resume.

A step is a pure function of (state, seed, step index): its random numbers come from generators that are seeded anew
in every step, so a resumed training needs no data cursor and no saved random state.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from components.errors import TesseraError
from components.metrics.tables import CurveTable
from components.training import checkpoint as checkpoints
from components.training.determinism import derive_seed

Batch = Any
Series = Mapping[str, Tensor | float]

_OWN_SERIES = {"loss", "gradient_norm", "learning_rate"}
_PROGRESS_SECONDS = 0.5


class NonFiniteLoss(TesseraError):
    """The loss, the gradient or a parameter became infinite or not a number."""


@dataclass(frozen=True)
class Optimisation:
    """AdamW with a linear warm-up and a cosine decay.

    Attributes:
        steps: Optimiser steps in all.
        learning_rate: Peak learning rate, reached at the end of the warm-up.
        warmup_steps: Steps of linear warm-up; one longer than the run is cut off with it.
        final_fraction: Learning rate of the last step as a fraction of the peak.
        betas: Decay of AdamW's first and second moment.
        weight_decay: Decoupled decay of parameters with two or more axes. Norm scales and biases (one axis) are not
            decayed: pulling them to zero shrinks activations without limiting what the model can express.
        gradient_clip: Largest global gradient norm, None for no clipping.
        ema_decay: Decay of the exponential moving average of parameters, None for no average.
    """

    steps: int
    learning_rate: float
    warmup_steps: int = 0
    final_fraction: float = 0.1
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 1e-4
    gradient_clip: float | None = 1.0
    ema_decay: float | None = None

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise TesseraError(f"Optimisation.steps is {self.steps}; expected at least 1.")
        if self.ema_decay is not None and not 0 <= self.ema_decay < 1:
            raise TesseraError(f"Optimisation.ema_decay is {self.ema_decay}; expected a value in [0, 1) or None.")

    def learning_rate_at(self, step: int) -> float:
        """Return the learning rate of step 0, 1, ..., steps - 1.

        Warm-up: `peak (step + 1) / warmup_steps`. Then, with t from 0 to 1 over the remaining steps,
        `peak (f + (1 - f) (1 + cos(pi t)) / 2)`, f the final fraction.
        """
        if step < self.warmup_steps:
            return self.learning_rate * (step + 1) / self.warmup_steps
        t = (step - self.warmup_steps) / max(1, self.steps - 1 - self.warmup_steps)
        cosine = (1 + math.cos(math.pi * t)) / 2
        return self.learning_rate * (self.final_fraction + (1 - self.final_fraction) * cosine)

    def ema_decay_at(self, step: int) -> float:
        """Return `min(ema_decay, (1 + step) / (10 + step))`: a short run must not remember its initial weights."""
        return min(self.ema_decay or 0.0, (1 + step) / (10 + step))


def fit(
    model: nn.Module,
    draw_batch: Callable[[int, torch.Generator], Batch],
    loss: Callable[[nn.Module, Batch, torch.Generator], tuple[Tensor, Series]],
    optimisation: Optimisation,
    *,
    seed: int,
    device: str | torch.device = "cpu",
    checkpoint: Path | None = None,
    checkpoint_seconds: float = 30.0,
    log_every: int = 50,
    progress: Callable[..., None] | None = None,
    after_step: Callable[[nn.Module, int, torch.Generator], None] | None = None,
    units: Mapping[str, str] | None = None,
) -> CurveTable:
    """Train a model in place and return its curves.

    The model is moved to `device`, trained in training mode and left in evaluation mode. When `ema_decay` is set it
    is left with the averaged parameters (buffers keep their last value); the raw ones are gone. Parameters with
    `requires_grad=False` are not optimised.

    Only torch's randomness is reproducible under a resume: `draw_batch`, `loss` and `after_step` take random numbers
    from the generator they are given or from torch's global one, never from `random` or `numpy.random`.

    Args:
        model: Its parameters and buffers (also non-persistent ones) are the whole state of the training.
        draw_batch: `(step, generator) -> batch`, any nesting of tensors; moved to `device`. The generator is on the
            CPU and depends only on (seed, step). What decides shapes (how many tokens are kept) is drawn here and put
            into the batch: drawn on a device, it would make every step wait for it.
        loss: `(model, batch, generator) -> (scalar loss, further series)`. The generator is on `device`, depends only
            on (seed, step) and not on how much `draw_batch` drew. Runs in bfloat16 autocast on CUDA.
        optimisation: Steps, learning rate, decay, clipping, averaging.
        seed: Seed of batches and noise. The initial weights are the caller's.
        device: Where to compute.
        checkpoint: Directory for the resumable state of this one training, None for none. Two trainings of one stage
            need two directories.
        checkpoint_seconds: Least time between two writes; they happen where curves are written. Never changes a value.
        log_every: Steps between two points of a curve, each the mean over the steps since the last point.
        progress: Called as `progress(done, total, loss=..., steps_per_second=...)` at most twice a second.
        after_step: `(model, step, generator)`, called without gradients after the optimiser's step (dead-code restart
            and the like); what it changes must be parameters or buffers.
        units: Units of series, such as `{"loss": "nats"}`.

    Returns:
        Curves "loss", "gradient_norm" (before clipping), "learning_rate" (of the last step) and every further series,
        at steps done = log_every, 2 log_every, ..., steps.

    Raises:
        NonFiniteLoss: Loss or gradient is not finite. On the CPU this is found before the optimiser's step, on CUDA
            when curves are next written. The last checkpoint is from before.
    """
    device, units = torch.device(device), units or {}
    on_cuda = device.type == "cuda"
    model.to(device).train()
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimiser = _adamw(parameters, optimisation)
    averaged = {name: tensor for name, tensor in model.named_parameters() if tensor.is_floating_point()}
    average = {name: tensor.detach().clone() for name, tensor in averaged.items()} if optimisation.ema_decay else {}
    drawing, generator = torch.Generator(), torch.Generator(device)

    first, curves = 0, CurveTable()
    identity = {"seed": seed, "log_every": log_every, "optimisation": dataclasses.asdict(optimisation)}
    if checkpoint is not None:
        first, curves = checkpoints.resume(checkpoint, model, optimiser, average, identity=identity)
    window: list[Series] = []
    watch = _Watch(first, checkpoint_seconds)

    for step in range(first, optimisation.steps):
        drawing.manual_seed(derive_seed(seed, step, 0))
        generator.manual_seed(derive_seed(seed, step, 1))
        _reseed_global(derive_seed(seed, step, 2), device)
        learning_rate = optimisation.learning_rate_at(step)
        for group in optimiser.param_groups:
            group["lr"] = learning_rate

        batch = _move(draw_batch(step, drawing), device)
        with torch.autocast("cuda", torch.bfloat16, enabled=on_cuda):
            value, series = loss(model, batch, generator)
        optimiser.zero_grad(set_to_none=True)
        value.backward()
        norm = _clip(parameters, optimisation.gradient_clip)
        window.append(_record(value, norm, series))
        if not on_cuda:
            # On CUDA this would wait for the device in every step; there the whole window is checked below.
            _check_finite(window[-1:], step, checkpoint)
        optimiser.step()

        with torch.no_grad():
            if after_step is not None:
                after_step(model, step, generator)
            if average:
                weight = 1 - optimisation.ema_decay_at(step)
                torch._foreach_lerp_(list(average.values()), list(averaged.values()), weight)

        done = step + 1
        if done % log_every and done < optimisation.steps:
            continue
        window = _fetch(window)
        _check_finite(window, done - len(window), checkpoint)
        for name, mean in _means(window).items():
            curves.add(name, done, mean, unit=units.get(name, ""))
        curves.add("learning_rate", done, learning_rate)
        last_loss, window = window[-1]["loss"], []
        if checkpoint is not None and watch.checkpoint_due(done == optimisation.steps):
            _check_parameters(model, done, checkpoint)
            checkpoints.save(checkpoint, model, optimiser, average, step=done, curves=curves, identity=identity)
        if progress is not None and watch.progress_due(done == optimisation.steps):
            progress(done, optimisation.steps, loss=last_loss, steps_per_second=watch.steps_per_second(done))

    if average:
        with torch.no_grad():
            torch._foreach_copy_(list(averaged.values()), list(average.values()))
    # What the caller draws next must not depend on whether the last step ran in this process.
    _reseed_global(derive_seed(seed, optimisation.steps, 2), device)
    model.eval()
    return curves


def _adamw(parameters: list[nn.Parameter], optimisation: Optimisation) -> torch.optim.AdamW:
    groups = [
        {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": optimisation.weight_decay},
        {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
    ]
    # The fused kernel is elementwise, hence deterministic, and the fastest one on the CPU as well as on CUDA.
    groups = [group for group in groups if group["params"]]
    return torch.optim.AdamW(groups, lr=optimisation.learning_rate, betas=optimisation.betas, fused=True)


def _reseed_global(seed: int, device: torch.device) -> None:
    # torch.manual_seed formats a stack trace for every kind of device that is not there: 0.2 ms in each step.
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)


def _clip(parameters: list[nn.Parameter], largest: float | None) -> Tensor:
    if largest is not None:
        return nn.utils.clip_grad_norm_(parameters, largest)
    return nn.utils.get_total_norm([parameter.grad for parameter in parameters if parameter.grad is not None])


def _move(batch: Batch, device: torch.device) -> Batch:
    if isinstance(batch, Tensor):
        if device.type == "cuda" and batch.device.type == "cpu":
            # A copy from pageable memory makes the host wait for the device.
            return batch.pin_memory().to(device, non_blocking=True)
        return batch.to(device)
    if isinstance(batch, Mapping):
        return {key: _move(part, device) for key, part in batch.items()}
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(_move(part, device) for part in batch))
    if isinstance(batch, (tuple, list)):
        return type(batch)(_move(part, device) for part in batch)
    return batch


def _record(value: Tensor, norm: Tensor, series: Series) -> Series:
    if taken := _OWN_SERIES & series.keys():
        raise TesseraError(f"The loss returns a series named {min(taken)!r}, which fit records itself; rename it.")
    record = {"loss": value, "gradient_norm": norm, **series}
    return {name: entry.detach() if isinstance(entry, Tensor) else entry for name, entry in record.items()}


def _fetch(window: list[Series]) -> list[dict[str, float]]:
    # All numbers travel from the device in one transfer.
    tensors = [
        entry.double().reshape(()) for record in window for entry in record.values() if isinstance(entry, Tensor)
    ]
    values = iter(torch.stack(tensors).tolist())
    return [
        {name: next(values) if isinstance(entry, Tensor) else float(entry) for name, entry in record.items()}
        for record in window
    ]


def _means(window: list[dict[str, float]]) -> dict[str, float]:
    points: dict[str, list[float]] = {}
    for record in window:
        for name, value in record.items():
            points.setdefault(name, []).append(value)
    return {name: sum(values) / len(values) for name, values in points.items()}


def _check_finite(window: list[Series], first: int, checkpoint: Path | None) -> None:
    for step, record in enumerate(window, start=first):
        if not (math.isfinite(record["loss"]) and math.isfinite(record["gradient_norm"])):
            values = ", ".join(f"{name} {float(value):.6g}" for name, value in record.items())
            raise NonFiniteLoss(f"Step {step}: {values}. Expected finite numbers. {_remedy(checkpoint)}")


def _check_parameters(model: nn.Module, done: int, checkpoint: Path) -> None:
    for name, parameter in model.named_parameters():
        if not bool(torch.isfinite(parameter).all()):
            raise NonFiniteLoss(f"Parameter {name} is not finite after {done} steps. {_remedy(checkpoint)}")


def _remedy(checkpoint: Path | None) -> str:
    kept = "" if checkpoint is None else f" The last good state, if one was written, is kept in {checkpoint}."
    return f"Lower the learning rate, lengthen the warm-up or clip the gradient harder.{kept}"


class _Watch:
    """Decides by the clock when to write and report; nothing it says changes a number."""

    def __init__(self, step: int, checkpoint_seconds: float) -> None:
        self._checkpoint_seconds = checkpoint_seconds
        self._checkpointed = time.monotonic()
        self._reported, self._reported_step = self._checkpointed, step

    def checkpoint_due(self, last: bool) -> bool:
        due = last or time.monotonic() - self._checkpointed >= self._checkpoint_seconds
        if due:
            self._checkpointed = time.monotonic()
        return due

    def progress_due(self, last: bool) -> bool:
        return last or time.monotonic() - self._reported >= _PROGRESS_SECONDS

    def steps_per_second(self, done: int) -> float:
        now = time.monotonic()
        speed = (done - self._reported_step) / max(now - self._reported, 1e-9)
        self._reported, self._reported_step = now, done
        return speed
