"""The training loop on several processes: the same steps, with every batch cut into shards.

    batch ── cut ──> shards 0 .. S-1 ── W processes, S/W each ──> loss, gradient ── mean over all ──> one step of AdamW

A shard has random numbers of its own, which depend on (seed, step, shard) and not on the process that computes it.
So the number of shards is part of an experiment and the number of processes is not: W may be 1 or any other divisor
of S, and change between a stop and a resume; values differ by the order of summation only. With one shard the loop
does what `loop.fit` does.

Letters: S shards, W processes, B batch.
"""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import polars as pl
import torch
import torch.distributed as dist
from torch import Tensor, nn

from components.errors import TesseraError
from components.metrics.tables import CURVE_SCHEMA, CurveTable
from components.training import checkpoint as checkpoints
from components.training import loop
from components.training.determinism import derive_seed
from components.training.loop import Batch, Optimisation, Series

Sharding = Literal["replicated", "fully_sharded"]


class NoShards(TesseraError):
    """A batch cannot be cut, or the shards cannot be dealt to the processes."""


def fit(
    model: nn.Module,
    draw_batch: Callable[[int, torch.Generator], Batch],
    loss: Callable[[nn.Module, Batch, torch.Generator], tuple[Tensor, Series]],
    optimisation: Optimisation,
    *,
    seed: int,
    shards: int,
    sharding: Sharding = "replicated",
    device: str | torch.device = "cpu",
    checkpoint: Path | None = None,
    checkpoint_seconds: float = 30.0,
    log_every: int = 50,
    progress: Callable[..., None] | None = None,
    after_step: Callable[[nn.Module, int, torch.Generator], None] | None = None,
    units: Mapping[str, str] | None = None,
    saved: Callable[[int], None] | None = None,
) -> CurveTable:
    """Train a model in place, together with the other processes of the default process group (none: alone).

    Every process calls this with equal arguments and leaves it with equal weights and curves. What is not said here
    is as in `loop.fit`.

    Args:
        model: Equal in every process, or else that of process 0 counts.
        draw_batch: `(step, generator) -> batch`; every process draws the whole batch, any nesting of tensors. Those
            whose first axis has the length B of the first tensor are cut along it, the others are kept whole.
        loss: `(model, batch, generator) -> (mean over the shard, further series)`. Buffers that it changes become the
            mean over shards, each of which starts from the buffers before the step.
        optimisation: Steps, learning rate, decay, clipping, averaging.
        seed: Seed of batches and noise.
        shards: S; B and S are multiples of it and of the number of processes respectively.
        sharding: "replicated": every process holds the model (DDP). "fully_sharded": each holds a part of parameters,
            gradients and moments (FSDP), for models that do not fit; the elements of a ModuleList are gathered one
            after the other.
        device: Where this process computes.
        checkpoint: Directory of process 0 for the resumable state; the others need not see it.
        checkpoint_seconds: Least time between two writes.
        log_every: Steps between two points of a curve.
        progress: Called in process 0 only.
        after_step: As in `loop.fit`, with equal generators in every process; not with "fully_sharded".
        units: Units of series.
        saved: Called in process 0 with the number of steps done, after a checkpoint was written.

    Returns:
        The curves of `loop.fit`, means over all shards.

    Raises:
        NoShards: Processes do not divide shards, or shards do not divide a batch.
        NonFiniteLoss: As in `loop.fit`, in every process.
    """
    device, units = torch.device(device), units or {}
    on_cuda = device.type == "cuda"
    group = _Group(device)
    mine = group.deal(shards)
    if sharding == "fully_sharded" and after_step is not None:
        raise TesseraError("after_step changes whole parameters; a fully sharded model has none. Use replicated.")
    model.to(device).train()
    group.spread([*model.parameters(), *model.buffers()])

    trained = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    optimiser = loop._adamw([parameter for _, parameter in trained], optimisation)
    averaged = {name: tensor for name, tensor in model.named_parameters() if tensor.is_floating_point()}
    average = {name: tensor.detach().clone() for name, tensor in averaged.items()} if optimisation.ema_decay else {}
    identity: dict[str, Any] = {"seed": seed, "log_every": log_every, "optimisation": dataclasses.asdict(optimisation)}
    if shards > 1:
        identity["shards"] = shards
    first, curves = 0, CurveTable()
    if checkpoint is not None:
        if group.rank == 0:
            first, curves = checkpoints.resume(checkpoint, model, optimiser, average, identity=identity)
        first, curves = group.agree(first, curves)
        _spread_state(group, first, model, optimiser, average)

    state: _Whole | _Parts = _Whole(model, optimiser, average)
    if sharding == "fully_sharded":
        state = _Parts(model, optimiser, average, optimisation, device)
    objective = state.objective(loss, group)
    parameters = [parameter for parameter in state.model.parameters() if parameter.requires_grad]
    optimiser = state.optimiser
    local, local_average = state.averaged()
    buffers = _Buffers(state.model, group, shards)
    drawing, generator = torch.Generator(), torch.Generator(device)
    window: list[Series] = []
    watch = loop._Watch(first, checkpoint_seconds)

    for step in range(first, optimisation.steps):
        drawing.manual_seed(derive_seed(seed, step, 0))
        loop._reseed_global(derive_seed(seed, step, 2), device)
        learning_rate = optimisation.learning_rate_at(step)
        for entry in optimiser.param_groups:
            entry["lr"] = learning_rate
        batch = draw_batch(step, drawing)
        optimiser.zero_grad(set_to_none=True)
        buffers.begin()
        records = []
        for shard in mine:
            if shards == 1:
                generator.manual_seed(derive_seed(seed, step, 1))
            else:
                generator.manual_seed(derive_seed(seed, step, 1, shard))
                loop._reseed_global(derive_seed(seed, step, 3, shard), device)
            part = loop._move(_cut(batch, shard, shards), device)
            with state.gathering(objective, last=shard == mine[-1]):
                with torch.autocast("cuda", torch.bfloat16, enabled=on_cuda):
                    value, series = objective(part, generator)
                (value / len(mine)).backward()
            buffers.after_shard()
            records.append({"loss": value.detach(), **series})
        buffers.end()
        norm = state.clip(parameters, optimisation.gradient_clip)
        window.append(loop._record(*_mean_record(records, norm)))
        if not on_cuda:
            loop._check_finite(window[-1:], step, checkpoint)
        optimiser.step()
        with torch.no_grad():
            if after_step is not None:
                generator.manual_seed(derive_seed(seed, step, 4))
                after_step(state.model, step, generator)
            if local_average:
                torch._foreach_lerp_(local_average, local, 1 - optimisation.ema_decay_at(step))

        done = step + 1
        if done % log_every and done < optimisation.steps:
            continue
        means = group.mean_of(loop._fetch(window))
        loop._check_finite(means, done - len(means), checkpoint)
        for name, mean in loop._means(means).items():
            curves.add(name, done, mean, unit=units.get(name, ""))
        curves.add("learning_rate", done, learning_rate)
        last_loss, window = means[-1]["loss"], []
        last = done == optimisation.steps
        if checkpoint is not None and group.decided(watch.checkpoint_due(last)):
            holder, optimiser_state, whole_average = state.gathered()
            if group.rank == 0:
                loop._check_parameters(holder, done, checkpoint)
                checkpoints.save(
                    checkpoint, holder, optimiser_state, whole_average, step=done, curves=curves, identity=identity
                )
                if saved is not None:
                    saved(done)
        if group.rank == 0 and progress is not None and watch.progress_due(last):
            progress(done, optimisation.steps, loss=last_loss, steps_per_second=watch.steps_per_second(done))

    state.finish(model)
    if average:
        with torch.no_grad():
            torch._foreach_copy_(list(averaged.values()), list(average.values()))
    loop._reseed_global(derive_seed(seed, optimisation.steps, 2), device)
    model.eval()
    return curves


class _Objective(nn.Module):
    """The loss as a module: gradients are gathered for whatever it calls of the model, not for `forward` alone."""

    def __init__(self, model: nn.Module, loss: Callable[..., tuple[Tensor, Series]]) -> None:
        super().__init__()
        self.model = model
        self._loss = loss

    def forward(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, Series]:
        value, series = self._loss(self.model, batch, generator)
        # What is only recorded must not count as a use of parameters, whose gradient would then be waited for.
        return value, {name: entry.detach() if isinstance(entry, Tensor) else entry for name, entry in series.items()}


class _Group:
    """The processes that train together; one alone where there is no process group."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.together = dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
        self.rank = dist.get_rank() if self.together else 0
        self.size = dist.get_world_size() if self.together else 1

    def deal(self, shards: int) -> range:
        """Return the shards that this process computes."""
        if shards < 1 or shards % self.size:
            raise NoShards(
                f"NoShards: {shards} shards cannot be dealt to {self.size} processes; expected a number of processes "
                f"that divides {shards}."
            )
        each = shards // self.size
        return range(self.rank * each, (self.rank + 1) * each)

    def spread(self, tensors: Iterable[Tensor]) -> None:
        """Give every process the values of process 0."""
        if self.together:
            for tensor in tensors:
                dist.broadcast(tensor.data if isinstance(tensor, nn.Parameter) else tensor, 0)

    def add(self, tensor: Tensor) -> Tensor:
        """Sum over the processes, in place."""
        if self.together:
            dist.all_reduce(tensor)
        return tensor

    def decided(self, value: bool) -> bool:
        """Return what process 0 says."""
        if not self.together:
            return value
        said = torch.tensor([int(value)], device=self._device)
        dist.broadcast(said, 0)
        return bool(said.item())

    def agree(self, first: int, curves: CurveTable) -> tuple[int, CurveTable]:
        """Return the steps done and the curves that process 0 has read."""
        if not self.together:
            return first, curves
        text = json.dumps({"step": first, "curves": curves.frame().to_dict(as_series=False)}).encode()
        length = torch.tensor([len(text)], device=self._device)
        dist.broadcast(length, 0)
        letters = torch.zeros(int(length.item()), dtype=torch.uint8, device=self._device)
        if self.rank == 0:
            letters.copy_(torch.frombuffer(bytearray(text), dtype=torch.uint8))
        dist.broadcast(letters, 0)
        said = json.loads(bytes(letters.tolist()))
        return said["step"], CurveTable.from_frame(pl.DataFrame(said["curves"], schema=CURVE_SCHEMA))

    def mean_of(self, window: list[dict[str, float]]) -> list[dict[str, float]]:
        """Return the means over the processes of what each has recorded."""
        if not self.together:
            return window
        names = list(window[0])
        values = torch.tensor([[record[name] for name in names] for record in window], dtype=torch.float64)
        means = (self.add(values.to(self._device)) / self.size).tolist()
        return [dict(zip(names, row, strict=True)) for row in means]


class _Buffers:
    """Keeps buffers independent of who computes which shard: each shard starts from the same, the mean goes on.

    A buffer that no shard changes is left alone.
    """

    def __init__(self, model: nn.Module, group: _Group, shards: int) -> None:
        self._model = model
        self._group = group
        self._shards = shards

    def begin(self) -> None:
        if self._shards == 1:
            return
        self._before = {name: tensor.detach().clone() for name, tensor in self._model.named_buffers()}
        self._sums: dict[str, Tensor] = {}

    @torch.no_grad()
    def after_shard(self) -> None:
        if self._shards == 1:
            return
        for name, tensor in self._model.named_buffers():
            change = tensor.double() - self._before[name].double() if tensor.is_floating_point() else tensor
            if not tensor.is_floating_point():
                self._sums.setdefault(name, change.clone())
            elif name in self._sums:
                self._sums[name] += change
            else:
                self._sums[name] = change
            if tensor.is_floating_point():
                tensor.copy_(self._before[name])

    @torch.no_grad()
    def end(self) -> None:
        if self._shards == 1:
            return
        for name, tensor in self._model.named_buffers():
            found = self._sums[name]
            if tensor.is_floating_point():
                change = self._group.add(found) / self._shards
                tensor.copy_(torch.where(change == 0, self._before[name], (self._before[name] + change).to(tensor)))
            else:
                self._group.spread([found])
                tensor.copy_(found)


class _Whole:
    """A model that every process holds."""

    def __init__(self, model: nn.Module, optimiser: torch.optim.Optimizer, average: dict[str, Tensor]) -> None:
        self.model = model
        self.optimiser = optimiser
        self._average = average

    def objective(self, loss: Callable[..., Any], group: _Group) -> nn.Module:
        plain = _Objective(self.model, loss)
        if not group.together:
            return plain
        # Buffers are our own affair, and a loss may leave parameters out (a layer that was dropped).
        return nn.parallel.DistributedDataParallel(plain, broadcast_buffers=False, find_unused_parameters=True)

    def gathering(self, objective: nn.Module, last: bool) -> Any:
        waits = not last and isinstance(objective, nn.parallel.DistributedDataParallel)
        return objective.no_sync() if waits else nullcontext()

    def clip(self, parameters: list[nn.Parameter], largest: float | None) -> Tensor:
        return loop._clip(parameters, largest)

    def averaged(self) -> tuple[list[Tensor], list[Tensor]]:
        named = dict(self.model.named_parameters())
        return [named[name] for name in self._average], list(self._average.values())

    def gathered(self) -> tuple[Any, Any, Mapping[str, Tensor]]:
        return self.model, self.optimiser, self._average

    def finish(self, model: nn.Module) -> None:
        return None


class _Parts:
    """A model of which every process holds a part; the caller's model receives the result at the end."""

    def __init__(
        self,
        model: nn.Module,
        optimiser: torch.optim.Optimizer,
        average: dict[str, Tensor],
        optimisation: Optimisation,
        device: torch.device,
    ) -> None:
        if not (dist.is_available() and dist.is_initialized()):
            raise NoShards(
                "NoShards: fully_sharded needs a process group; expected at least one process started in it."
            )
        self._whole, self._average = model, average
        self.model = copy.deepcopy(model)
        self._device = device
        self._optimisation = optimisation
        self._moments = {name: optimiser.state.get(tensor, {}) for name, tensor in model.named_parameters()}

    def objective(self, loss: Callable[..., Any], group: _Group) -> nn.Module:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        mesh = init_device_mesh(self._device.type, (dist.get_world_size(),))
        for module in [part for each in self.model.modules() if isinstance(each, nn.ModuleList) for part in each]:
            fully_shard(module, mesh=mesh)
        objective = fully_shard(_Objective(self.model, loss), mesh=mesh)
        named = dict(self.model.named_parameters())
        self.optimiser = loop._adamw([tensor for tensor in named.values() if tensor.requires_grad], self._optimisation)
        for name, moments in self._moments.items():
            if moments:
                self.optimiser.state[named[name]] = {
                    key: value if key == "step" else _part_of(value, named[name]) for key, value in moments.items()
                }
        self._own_average = {name: _part_of(tensor, named[name]).to_local() for name, tensor in self._average.items()}
        return objective

    def gathering(self, objective: nn.Module, last: bool) -> Any:
        objective.set_requires_gradient_sync(last)
        return nullcontext()

    def clip(self, parameters: list[nn.Parameter], largest: float | None) -> Tensor:
        norm = loop._clip(parameters, largest)
        return norm.full_tensor() if hasattr(norm, "full_tensor") else norm

    def averaged(self) -> tuple[list[Tensor], list[Tensor]]:
        named = dict(self.model.named_parameters())
        return [named[name].detach().to_local() for name in self._own_average], list(self._own_average.values())

    def gathered(self) -> tuple[Any, Any, Mapping[str, Tensor]]:
        with torch.no_grad():
            named = dict(self.model.named_parameters())
            whole = {name: nn.Parameter(tensor.full_tensor(), tensor.requires_grad) for name, tensor in named.items()}
            moments = {
                whole[name]: {
                    key: value.full_tensor() if hasattr(value, "full_tensor") else value
                    for key, value in self.optimiser.state.get(named[name], {}).items()
                }
                for name in named
            }
            average = {name: _whole_of(tensor, named[name]) for name, tensor in self._own_average.items()}
        buffers = dict(self.model.named_buffers())
        holder = SimpleNamespace(named_parameters=whole.items, named_buffers=buffers.items)
        return holder, SimpleNamespace(state=moments), average

    def finish(self, model: nn.Module) -> None:
        holder, _, average = self.gathered()
        with torch.no_grad():
            for (_, target), (_, source) in zip(model.named_parameters(), holder.named_parameters(), strict=True):
                target.copy_(source)
            for (_, target), (_, source) in zip(model.named_buffers(), holder.named_buffers(), strict=True):
                target.copy_(source)
            for name, tensor in average.items():
                self._average[name].copy_(tensor)


def _part_of(whole: Tensor, like: Tensor) -> Any:
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(whole, like.device_mesh, like.placements)


def _whole_of(part: Tensor, like: Tensor) -> Tensor:
    from torch.distributed.tensor import DTensor

    shaped = DTensor.from_local(part, like.device_mesh, like.placements, shape=like.shape, stride=like.stride())
    return shaped.full_tensor()


def _spread_state(
    group: _Group, first: int, model: nn.Module, optimiser: torch.optim.Optimizer, average: Mapping[str, Tensor]
) -> None:
    """Give every process the state that process 0 has read."""
    if not group.together or first == 0:
        return
    group.spread([*model.parameters(), *model.buffers(), *average.values()])
    for entry in optimiser.param_groups:
        for parameter in entry["params"]:
            state = optimiser.state[parameter]
            if group.rank != 0:
                state["step"] = torch.zeros((), dtype=torch.float32, device=parameter.device)
                state["exp_avg"] = torch.zeros_like(parameter)
                state["exp_avg_sq"] = torch.zeros_like(parameter)
            group.spread([state["step"], state["exp_avg"], state["exp_avg_sq"]])


def _cut(batch: Batch, shard: int, shards: int) -> Batch:
    """Return one of the S equal parts of a batch."""
    if shards == 1:
        return batch
    length = _length(batch)
    if length is None or length % shards:
        raise NoShards(
            f"NoShards: a batch of {length} cannot be cut into {shards} equal shards; expected a batch size that is a "
            f"multiple of {shards}."
        )
    rows = slice(shard * (length // shards), (shard + 1) * (length // shards))

    def part(value: Batch) -> Batch:
        if isinstance(value, Tensor):
            return value[rows] if value.dim() and value.shape[0] == length else value
        if isinstance(value, Mapping):
            return {key: part(entry) for key, entry in value.items()}
        if isinstance(value, tuple) and hasattr(value, "_fields"):
            return type(value)(*(part(entry) for entry in value))
        if isinstance(value, (tuple, list)):
            return type(value)(part(entry) for entry in value)
        return value

    return part(batch)


def _length(batch: Batch) -> int | None:
    """Return the length of the first axis of a batch's first tensor that has one."""
    if isinstance(batch, Tensor):
        return batch.shape[0] if batch.dim() else None
    entries = batch.values() if isinstance(batch, Mapping) else batch if isinstance(batch, (tuple, list)) else ()
    return next((length for entry in entries if (length := _length(entry)) is not None), None)


def _mean_record(records: list[dict[str, Any]], norm: Tensor) -> tuple[Tensor, Tensor, Series]:
    """Return (loss, norm, series), each the mean over this process's shards."""
    if len(records) == 1:
        series = dict(records[0])
    else:
        series = {name: sum(record[name] for record in records) / len(records) for name in records[0]}
    return series.pop("loss"), norm, series
