"""What holds for every quantizer, whatever its family: the interface that a codec, a loop and a study rely on."""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from components.bases import construct, specification
from components.metrics.codebook import entropy_bits, joint_entropy_bits, usage, usage_per_index
from components.quantizers.channel_split import ChannelSplitQuantizer
from components.quantizers.fsq import FiniteScalarQuantizer
from components.quantizers.lfq import LookupFreeQuantizer
from components.quantizers.quantized import QuantizerError, QuantizerModule
from components.training.loop import Optimisation, fit
from components.training.weights import load_weights, save_weights

D = 8


def generator(seed=0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def identity(quantizer: QuantizerModule, vectors: Tensor) -> Tensor:
    return vectors


def normalised(quantizer: QuantizerModule, vectors: Tensor) -> Tensor:
    return F.normalize(vectors, dim=-1)


def parts_normalised(quantizer: QuantizerModule, vectors: Tensor) -> Tensor:
    return F.normalize(vectors.unflatten(-1, (2, -1)), dim=-1).flatten(-2)


def bounded(quantizer: FiniteScalarQuantizer, vectors: Tensor) -> Tensor:
    levels = torch.tensor(quantizer.levels)
    half = (levels - 1) * 1.001 / 2
    offset = torch.where(levels % 2 == 0, 0.5, 0.0)
    return (half * torch.tanh(vectors + torch.atanh(offset / half)) - offset) / (levels // 2)


def expected_code(quantizer: QuantizerModule, vectors: Tensor) -> Tensor:
    logits = vectors @ quantizer.to_logits.weight.detach().T + quantizer.to_logits.bias.detach()
    return F.softmax(logits / quantizer.temperature, -1) @ quantizer.codes.detach()


def rotated(quantizer: QuantizerModule, vectors: Tensor) -> Tensor:
    """Turn vectors by the angle between them and their codes, in the plane of both, and scale them."""
    start = vectors.detach()
    codes = quantizer.codebook.lookup(quantizer.codebook.nearest(start)).detach()
    one = F.normalize(start, dim=-1)
    other = F.normalize(codes - (codes * one).sum(-1, keepdim=True) * one, dim=-1)
    cosine = F.cosine_similarity(start, codes, dim=-1).unsqueeze(-1)
    sine = (1 - cosine.square()).sqrt()
    along, across = (vectors * one).sum(-1, keepdim=True), (vectors * other).sum(-1, keepdim=True)
    turned = vectors + (along * (cosine - 1) - across * sine) * one + (along * sine + across * (cosine - 1)) * other
    return turned * (codes.norm(dim=-1, keepdim=True) / start.norm(dim=-1, keepdim=True))


@dataclass(frozen=True)
class Family:
    """A quantizer under test: how it is built, and the smooth map whose gradient its paper gives to `values`."""

    module: str
    options: dict
    surrogate: Callable[[QuantizerModule, Tensor], Tensor] = identity
    restarts: bool = False

    def build(self, seed=0) -> QuantizerModule:
        torch.manual_seed(seed)
        return construct(specification(f"components.quantizers.{self.module}", **self.options))


TABLE = {"codebook_size": 24, "code_dim": D}
EMA = {"code_ema_decay": 0.9, "restart_every": 2}
FAMILIES = {
    "vq": Family("vq", {**TABLE, "restart_every": 2}, normalised, restarts=True),
    "vq_ema": Family("vq", {**TABLE, **EMA}, normalised, restarts=True),
    "euclidean_vq": Family("euclidean_vq", {**TABLE, "restart_every": 2}, restarts=True),
    "euclidean_vq_ema": Family("euclidean_vq", {**TABLE, **EMA}, restarts=True),
    "rvq": Family("rvq", {**TABLE, "codebooks": 3, "restart_every": 2}, restarts=True),
    "rvq_ema": Family("rvq", {**TABLE, "codebooks": 3, **EMA}, restarts=True),
    "pq": Family("pq", {**TABLE, "codebooks": 2, "restart_every": 2}, restarts=True),
    "pq_ema": Family("pq", {**TABLE, "codebooks": 2, **EMA}, restarts=True),
    "multi_codebook": Family("multi_codebook", {**TABLE, "codebooks": 2, **EMA}, parts_normalised, restarts=True),
    "additive": Family("additive", {**TABLE, "codebooks": 2, "beam_width": 4, "restart_every": 2}, restarts=True),
    "additive_ema": Family("additive", {**TABLE, "codebooks": 2, "beam_width": 4, **EMA}, restarts=True),
    "fsq": Family("fsq", {"levels": [2, 3, 4, 5, 6, 7, 8, 9]}, bounded),
    "lfq": Family("lfq", {"code_dim": D, "entropy_temperature": 1.0}),
    "bsq": Family("bsq", {"code_dim": D}, normalised),
    "channel_split_fsq": Family(
        "channel_split",
        {"base": specification("components.quantizers.fsq", levels=[8, 5, 5, 5]), "groups": 2},
        lambda quantizer, vectors: torch.cat(
            [bounded(part, piece) for part, piece in zip(quantizer.parts, vectors.split(4, -1), strict=True)], -1
        ),
    ),
    "channel_split_lfq": Family(
        "channel_split", {"base": specification("components.quantizers.lfq", code_dim=4), "groups": 2}
    ),
    "channel_split_rvq": Family(
        "channel_split",
        {
            "base": specification("components.quantizers.rvq", codebook_size=16, code_dim=4, codebooks=2, **EMA),
            "groups": 2,
        },
        restarts=True,
    ),
    "dimension_wise": Family("dimension_wise", {"code_dim": D, "levels_per_dimension": 16}),
    "dimension_wise_uniform": Family(
        "dimension_wise", {"code_dim": D, "levels_per_dimension": 16, "spacing": "uniform"}
    ),
    "gumbel": Family("gumbel", TABLE, expected_code),
    "kmeans": Family("kmeans", TABLE),
    "rotation_trick": Family("rotation_trick", {**TABLE, "restart_every": 2}, rotated, restarts=True),
    "rotation_trick_ema": Family("rotation_trick", {**TABLE, **EMA}, rotated, restarts=True),
}
every_family = pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES.keys())
restarting = {name: family for name, family in FAMILIES.items() if family.restarts}
every_restarting_family = pytest.mark.parametrize("family", restarting.values(), ids=restarting.keys())


def draw(*shape, seed=1) -> Tensor:
    return torch.randn(*shape, D, generator=generator(seed))


def used_share(quantizer: QuantizerModule, indices: Tensor) -> list[float]:
    if quantizer.indices_have_an_axis:
        return usage_per_index(indices, quantizer.codebook_sizes).tolist()
    return [usage(indices, quantizer.codebook_size)]


def tables(quantizer: QuantizerModule) -> list[Tensor]:
    """Return every table of codes that can restart."""
    return [module.weight.detach() for module in quantizer.modules() if hasattr(module, "uses")]


@every_family
def test_shapes_types_and_nominal_bits(family):
    quantizer = family.build()
    vectors = draw(2, 3)
    values, indices, loss = quantizer(vectors)
    assert quantizer.code_dim == D
    assert values.shape == vectors.shape
    assert values.dtype == torch.float32
    axis = (len(quantizer.codebook_sizes),) if quantizer.indices_have_an_axis else ()
    assert indices.shape == (2, 3, *axis)
    assert indices.dtype == torch.int64
    assert loss.shape == ()
    assert loss.isfinite()
    assert quantizer.bits_per_vector == pytest.approx(math.log2(math.prod(quantizer.codebook_sizes)))
    if len(quantizer.codebook_sizes) == 1:
        assert quantizer.codebook_size == quantizer.codebook_sizes[0]
    else:
        with pytest.raises(QuantizerError, match="Use codebook_sizes"):
            _ = quantizer.codebook_size


@every_family
def test_decoded_indices_are_the_values_bit_for_bit_in_training_and_evaluation(family):
    quantizer = family.build()
    quantizer.start_from(draw(40), generator())
    for mode in (True, False):
        result = quantizer.train(mode)(draw(3, 5).requires_grad_())
        decoded = quantizer.decode(result.indices)
        assert torch.equal(result.values.view(torch.int32), decoded.view(torch.int32))
        assert torch.equal(quantizer.decode(result.indices[:, :2]), decoded[:, :2])


@every_family
def test_the_gradient_of_the_values_is_that_of_the_smooth_map_the_paper_names(family):
    quantizer = family.build().eval()
    vectors, upstream = draw(6, seed=2).requires_grad_(), draw(6, seed=3)
    (quantizer(vectors).values * upstream).sum().backward()
    smooth = draw(6, seed=2).requires_grad_()
    (family.surrogate(quantizer, smooth) * upstream).sum().backward()
    torch.testing.assert_close(vectors.grad, smooth.grad, atol=2e-6, rtol=1e-4)
    assert vectors.grad.abs().sum() > 0


@every_family
def test_reconstruction_moves_no_code_that_a_loss_or_an_average_moves(family):
    quantizer = family.build()
    quantizer(draw(6).requires_grad_()).values.square().sum().backward()
    tables = [parameter for parameter in quantizer.parameters() if parameter.grad is not None]
    if family.module == "gumbel":
        assert len(tables) == 3
    else:
        assert not tables


@every_family
def test_a_vector_has_the_same_code_alone_in_any_batch_and_in_any_order(family):
    quantizer = family.build().eval()
    quantizer.start_from(draw(60), generator())
    vectors = draw(31)
    whole = quantizer(vectors)
    single = torch.stack([quantizer(vector).indices for vector in vectors])
    assert torch.equal(single, whole.indices)
    order = torch.randperm(31, generator=generator())
    assert torch.equal(quantizer(vectors[order]).indices, whole.indices[order])
    assert torch.equal(quantizer(vectors[order]).values, whole.values[order])
    assert torch.equal(quantizer(vectors.view(31, 1, D)).indices, whole.indices.unsqueeze(1))
    assert torch.equal(quantizer(vectors[:16]).values, whole.values[:16])
    assert torch.equal(quantizer(vectors.t().contiguous().t()).indices, whole.indices)


@every_family
def test_a_forward_pass_changes_nothing_in_evaluation_and_no_code_in_training(family):
    quantizer = family.build()
    quantizer.start_from(draw(60), generator())
    before = copy.deepcopy(quantizer.state_dict())
    quantizer.train()(draw(40))
    quantizer.eval()(draw(40))
    for name, tensor in quantizer.state_dict().items():
        assert torch.equal(tensor, before[name]) or name.endswith("uses"), name
    quantizer.eval().after_step(0, generator())
    quantizer(draw(3))


@every_family
def test_codebook_use_and_entropy_lie_between_nothing_and_everything(family):
    quantizer = family.build().eval()
    quantizer.start_from(draw(200), generator())
    indices = quantizer(draw(300)).indices
    assert all(0 < share <= 1 for share in used_share(quantizer, indices))
    bits = joint_entropy_bits(indices) if quantizer.indices_have_an_axis else entropy_bits(indices)
    assert 0 < bits <= quantizer.bits_per_vector + 1e-9
    constant = quantizer(draw(1).expand(50, D)).indices
    sizes = quantizer.codebook_sizes
    assert used_share(quantizer, constant) == pytest.approx([1 / size for size in sizes])


@every_restarting_family
def test_restarts_bring_dead_codes_back_to_life(family):
    quantizer = family.build().train()
    # Data on one side of the origin, and all codes but the first of each table far away on the other.
    data = draw(400, seed=7).abs()
    with torch.no_grad():
        for table in tables(quantizer):
            table.fill_(-50.0)[0] = 0.5
            if family.module in ("vq", "multi_codebook"):
                table.copy_(F.normalize(table, dim=-1))
    before = used_share(quantizer, quantizer(data).indices)
    for step in range(8):
        quantizer(data)
        quantizer.after_step(step, generator(step))
    after = used_share(quantizer, quantizer(data).indices)
    assert max(before) < 0.1
    assert min(after) > 0.8


@every_family
def test_a_fit_to_the_first_batch_depends_on_the_generator_alone(family):
    states = []
    for _ in range(2):
        quantizer = family.build()
        quantizer.start_from(draw(100), generator(5))
        states.append(quantizer.state_dict())
    for name, tensor in states[0].items():
        assert torch.equal(tensor, states[1][name]), name


@every_family
def test_half_precision_names_the_codes_of_the_rounded_vectors(family):
    quantizer = family.build().eval()
    quantizer.start_from(draw(100), generator())
    vectors = draw(600)
    expected = quantizer(vectors)
    with torch.autocast("cpu", torch.bfloat16):
        inside = quantizer(vectors)
    assert torch.equal(inside.indices, expected.indices)
    torch.testing.assert_close(inside.values, expected.values)
    torch.testing.assert_close(inside.loss.float(), expected.loss, rtol=1e-3, atol=1e-4)
    half = quantizer(vectors.bfloat16())
    assert torch.equal(half.values, quantizer.decode(half.indices))
    same = half.indices == quantizer(vectors.bfloat16().float()).indices
    # A vector that is normalised in bfloat16 may cross a border on the way.
    assert same.float().mean() >= (0.9 if family.module in ("vq", "multi_codebook") else 1.0)


@every_family
def test_saved_weights_come_back_to_the_same_codes_and_the_same_training(family, tmp_path):
    quantizer = family.build()
    quantizer.start_from(draw(100), generator())
    quantizer.train()(draw(50))
    quantizer.after_step(0, generator())
    save_weights(quantizer, tmp_path / "model.safetensors")
    other = family.build(seed=9)
    load_weights(other, tmp_path / "model.safetensors")
    for step in (1, 2):
        for each in (quantizer, other):
            torch.manual_seed(step)
            each.train()(draw(50, seed=step))
            each.after_step(step, generator(step))
    for name, tensor in quantizer.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name]), name
    assert torch.equal(quantizer.eval()(draw(9)).values, other.eval()(draw(9)).values)


@pytest.mark.parametrize("name", ["euclidean_vq_ema", "rvq_ema", "additive_ema", "multi_codebook", "gumbel", "lfq"])
def test_a_training_that_is_killed_and_resumed_is_the_same_bit_for_bit(name, tmp_path):
    class Toy(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder = nn.Linear(6, D)
            self.quantizer = FAMILIES[name].build()

    def train(checkpoint, stop_at):
        torch.manual_seed(0)
        toy = Toy()

        def draw_batch(step, generator):
            if step == stop_at:
                raise KeyboardInterrupt
            return torch.randn(8, 6, generator=generator)

        def loss(toy, batch, _):
            result = toy.quantizer(toy.encoder(batch))
            return (result.values.sum(1) - batch[:, 0]).square().mean() + result.loss, {}

        fit(
            toy, draw_batch, loss, Optimisation(steps=8, learning_rate=1e-2), seed=3, checkpoint=checkpoint,
            checkpoint_seconds=0, log_every=1, after_step=lambda toy, step, g: toy.quantizer.after_step(step, g),
        )  # fmt: skip
        return toy.state_dict()

    straight = train(tmp_path / "one", None)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "two", 5)
    resumed = train(tmp_path / "two", None)
    for key, tensor in straight.items():
        assert torch.equal(tensor, resumed[key]), key


@every_family
def test_it_is_built_on_the_meta_device_without_memory(family):
    with torch.device("meta"):
        quantizer = family.build()
    assert {tensor.device.type for tensor in quantizer.state_dict().values()} <= {"meta"}
    shapes = {name: tensor.shape for name, tensor in quantizer.state_dict().items()}
    assert shapes == {name: tensor.shape for name, tensor in family.build().state_dict().items()}


@every_family
def test_wrong_widths_types_and_indices_are_refused_with_what_was_expected(family):
    quantizer = family.build()
    for wrong in (torch.randn(4, D + 1), torch.zeros(4, D, dtype=torch.int64), torch.tensor(1.0)):
        with pytest.raises(QuantizerError, match=rf"expected floating-point vectors \(\.\.\., {D}\)"):
            quantizer(wrong)
    with pytest.raises(QuantizerError, match="integer indices"):
        quantizer.decode(torch.zeros(3, len(quantizer.codebook_sizes)))
    indices = quantizer(draw(4)).indices
    for value in (-1, max(quantizer.codebook_sizes)):
        with pytest.raises(QuantizerError, match=f"an index of {value}"):
            quantizer.decode(torch.full_like(indices, value))
    if quantizer.indices_have_an_axis:
        with pytest.raises(QuantizerError, match=rf"expected \(\.\.\., {len(quantizer.codebook_sizes)}\)"):
            quantizer.decode(torch.zeros(3, len(quantizer.codebook_sizes) + 1, dtype=torch.int64))


@pytest.mark.parametrize(
    ("module", "options", "message"),
    [
        ("euclidean_vq", {"codebook_size": 1, "code_dim": 4}, "each at least 2"),
        ("euclidean_vq", {"codebook_size": 4, "code_dim": 0}, "at least one dimension"),
        ("euclidean_vq", {"codebook_size": 4, "code_dim": 4, "code_ema_decay": 1.0}, r"\[0, 1\)"),
        ("euclidean_vq", {"codebook_size": 4, "code_dim": 4, "restart_every": -1}, "at least 0 steps"),
        ("rvq", {"codebook_size": 4, "code_dim": 4, "codebooks": 0}, "one or more"),
        ("pq", {"codebook_size": 4, "code_dim": 6, "codebooks": 4}, "multiple of the number of codebooks"),
        ("additive", {"codebook_size": 4, "code_dim": 6, "codebooks": 2, "beam_width": 0}, "at least 1"),
        ("fsq", {"levels": []}, "at least one dimension"),
        ("fsq", {"levels": [1, 4]}, "at least 2 levels"),
        ("fsq", {"levels": [16] * 16}, "channel_split"),
        ("lfq", {"code_dim": 63}, "1 to 62"),
        ("lfq", {"code_dim": 4, "entropy_temperature": 0.0}, "above 0"),
        ("bsq", {"code_dim": 0}, "1 to 62"),
        ("bsq", {"code_dim": 4, "inverse_temperature": -1.0}, "above 0"),
        ("channel_split", {"base": specification("components.quantizers.bsq", code_dim=3), "groups": 0}, "1 group"),
        ("dimension_wise", {"code_dim": 3, "levels_per_dimension": 1}, "each at least 2"),
        ("dimension_wise", {"code_dim": 3, "spacing": "log"}, "gaussian, uniform"),
        ("gumbel", {"codebook_size": 4, "code_dim": 2, "end_temperature": 2.0}, "0 < end <= start"),
    ],
)
def test_sizes_that_make_no_quantizer_are_refused(module, options, message):
    with pytest.raises(QuantizerError, match=message):
        construct(specification(f"components.quantizers.{module}", **options))


def test_copies_in_a_channel_split_share_nothing():
    quantizer = ChannelSplitQuantizer(LookupFreeQuantizer(4), 3)
    assert len({id(part) for part in quantizer.parts}) == 3


@pytest.mark.gpu
@every_family
def test_the_device_changes_no_code(family):
    quantizer = family.build().eval()
    quantizer.start_from(draw(100), generator())
    vectors = draw(200)
    here = quantizer(vectors)
    there = quantizer.cuda()(vectors.cuda())
    assert torch.equal(there.indices.cpu(), here.indices)
    torch.testing.assert_close(there.values.cpu(), here.values)
    torch.testing.assert_close(there.loss.cpu(), here.loss)
