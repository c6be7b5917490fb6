"""The loop on several processes against the loop on one: shards make curves independent of who computes what."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from group_training import OPTIMISATION, STEPS, Network, curve, draw, noisy, plain
from torch import nn

from components.training import distributed, loop
from components.training.distributed import NoShards, fit

LOSSES = {"noisy": noisy, "plain": plain}


def train(loss: str, shards: int, steps: int | None = None, **options):
    model = Network()
    curves = fit(model, draw, LOSSES[loss], OPTIMISATION, seed=5, shards=shards, log_every=1, **options)
    return model, curves


def worker() -> None:
    """One process of a group; the test starts several. Arguments: loss, shards, sharding, folder, what to do."""
    loss, shards, sharding, folder, action = sys.argv[2:]
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo")
    rank = torch.distributed.get_rank()
    checkpoint = Path(folder) / f"checkpoint-{rank}"  # as on nodes that share nothing

    def saved(done: int) -> None:
        if action == "stop" and done == 10:
            os._exit(7)

    options = {} if action == "run" else {"checkpoint": checkpoint, "checkpoint_seconds": 0.0, "saved": saved}
    model, curves = train(loss, int(shards), sharding=sharding, **options)
    result = {
        "loss": curve(curves),
        "norm": curve(curves, "gradient_norm"),
        "weights": {name: tensor.tolist() for name, tensor in model.state_dict().items()},
    }
    (Path(folder) / f"rank-{rank}.json").write_text(json.dumps(result))
    torch.distributed.destroy_process_group()


def together(folder: Path, processes: int, loss: str, shards: int, sharding="replicated", action="run") -> list[dict]:
    """Run `worker` in several processes; return what each has written."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder.mkdir(exist_ok=True)
    started = [
        subprocess.Popen(
            [sys.executable, __file__, "worker", loss, str(shards), sharding, str(folder), action],
            env=os.environ
            | {"RANK": str(rank), "WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
            | {"GLOO_SOCKET_IFNAME": "lo", "PYTHONPATH": os.pathsep.join([os.getcwd(), os.environ["PYTHONPATH"]])},
            stderr=subprocess.PIPE,
        )
        for rank in range(processes)
    ]
    if action == "stop":
        assert started[0].wait(timeout=120) == 7
        for process in started[1:]:
            process.kill()
            process.communicate()
        return []
    said = [process.communicate(timeout=240)[1].decode() for process in started]
    assert [process.returncode for process in started] == [0] * processes, said
    return [json.loads((folder / f"rank-{rank}.json").read_text()) for rank in range(processes)]


def assert_close(found: dict, model: nn.Module, curves, tolerance: float = 1e-5) -> None:
    assert found["loss"] == pytest.approx(curve(curves), abs=tolerance)
    for name, tensor in model.state_dict().items():
        assert torch.tensor(found["weights"][name]).allclose(tensor, atol=tolerance * 10), name


def test_with_one_shard_the_loop_gives_the_bits_of_the_plain_loop(tmp_path):
    one, other = Network(), Network()
    expected = loop.fit(one, draw, noisy, OPTIMISATION, seed=5, log_every=1)
    found = fit(other, draw, noisy, OPTIMISATION, seed=5, shards=1, log_every=1)
    assert found.frame().equals(expected.frame())
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))


def test_shards_of_a_loss_without_noise_give_the_curve_of_the_whole_batch():
    expected = loop.fit(Network(), draw, plain, OPTIMISATION, seed=5, log_every=1)
    for shards in (2, 4):
        assert curve(train("plain", shards)[1]) == pytest.approx(curve(expected), abs=1e-5)


def test_two_processes_give_the_curve_of_one_and_equal_weights(tmp_path):
    model, curves = train("noisy", 2)
    first, second = together(tmp_path, 2, "noisy", 2)
    assert first == second
    assert_close(first, model, curves)
    assert first["norm"] == pytest.approx(curve(curves, "gradient_norm"), abs=1e-4)
    assert torch.tensor(first["weights"]["constant"]).equal(model.constant)
    assert model.running.abs().sum() > 0


@pytest.mark.slow
@pytest.mark.parametrize("sharding", ["replicated", "fully_sharded"])
@pytest.mark.parametrize("loss", ["noisy", "plain"])
def test_processes_give_the_curve_of_one_however_the_model_is_held(tmp_path, sharding, loss):
    model, curves = train(loss, 4)
    for found in together(tmp_path, 2, loss, 4, sharding):
        assert_close(found, model, curves)


@pytest.mark.slow
@pytest.mark.parametrize("sharding", ["replicated", "fully_sharded"])
def test_a_killed_training_goes_on_with_another_number_of_processes(tmp_path, sharding):
    model, curves = train("noisy", 2)
    together(tmp_path, 2, "noisy", 2, sharding, action="stop")
    assert (tmp_path / "checkpoint-0" / "training.safetensors").is_file()
    assert not (tmp_path / "checkpoint-1").exists()
    resumed = Network()
    first = []
    found = fit(
        resumed, lambda step, generator: first.append(step) or draw(step, generator), noisy, OPTIMISATION, seed=5,
        shards=2, log_every=1, checkpoint=tmp_path / "checkpoint-0",
    )  # fmt: skip
    assert first[0] == 10
    assert curve(found) == pytest.approx(curve(curves), abs=1e-5)
    again = together(tmp_path, 1, "noisy", 2, sharding, action="go-on")[0]
    assert_close(again, model, curves)


@pytest.mark.slow
def test_a_training_begun_by_one_process_goes_on_with_two(tmp_path):
    model, curves = train("noisy", 2)
    tmp_path.mkdir(exist_ok=True)
    together(tmp_path, 1, "noisy", 2, action="stop")
    for found in together(tmp_path, 2, "noisy", 2, action="go-on"):
        assert_close(found, model, curves)


def test_a_batch_that_cannot_be_cut_and_processes_that_do_not_divide_are_refused():
    with pytest.raises(NoShards, match=r"batch of 16 cannot be cut into 3"):
        train("plain", 3)
    group = distributed._Group(torch.device("cpu"))
    group.size = 4
    with pytest.raises(NoShards, match="6 shards cannot be dealt to 4 processes"):
        group.deal(6)


def test_only_what_has_the_batch_axis_is_cut():
    batch = {
        "x": torch.arange(4),
        "table": torch.zeros(3, 4),
        "pair": (torch.zeros(4, 2), "name"),
        "one": torch.ones(()),
    }
    part = distributed._cut(batch, 1, 2)
    assert part["x"].tolist() == [2, 3]
    assert part["table"].shape == (3, 4)
    assert part["pair"][0].shape == (2, 2)
    assert part["pair"][1] == "name"
    assert part["one"].dim() == 0


def test_a_training_with_other_shards_does_not_take_the_checkpoint(tmp_path, caplog):
    train("plain", 2, checkpoint=tmp_path)
    _, curves = train("plain", 4, checkpoint=tmp_path)
    assert len(curve(curves)) == STEPS
    assert "is discarded" in caplog.text


if __name__ == "__main__" and sys.argv[1:2] == ["worker"]:
    worker()
