"""Generators of image tokens against enumeration, sampling without a cache, and what a token may depend on."""

import itertools

import pytest
import torch

from components.language.class_conditional import ClassConditionalAR, GeneratorError, guidance_at, without_some_classes
from components.nn.dimension_ar_head import DimensionARHead, draw
from components.nn.flow_head import FlowHead
from components.nn.independent_heads import IndependentHeads
from components.nn.token_embedding import IndexEmbedding, VectorEmbedding
from components.nn.token_embedding import build as embedding_of
from components.quantizers.dimension_wise import DimensionWiseQuantizer

CLASSES, POSITIONS, WIDTH = 3, 4, 8


def generator(seed=0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def shaken(model: torch.nn.Module) -> torch.nn.Module:
    drawn = generator()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.4 * torch.randn(parameter.shape, generator=drawn))
    return model.eval()


def model(head=None, embedding=None, positions=POSITIONS) -> ClassConditionalAR:
    quantizer = DimensionWiseQuantizer(2, levels_per_dimension=3)
    return shaken(
        ClassConditionalAR(
            embedding=embedding or VectorEmbedding(2, WIDTH, quantizer),
            head=head or DimensionARHead(WIDTH, 2, 3, width=8, layers=1, heads=2, order=[1, 0]),
            classes=CLASSES,
            positions=positions,
            width=WIDTH,
            layers=2,
            heads=2,
        )
    )


def tokens(count=5, positions=POSITIONS) -> torch.Tensor:
    return torch.randint(3, (count, positions, 2), generator=generator())


@torch.no_grad()
def test_a_position_depends_on_the_class_and_the_tokens_before_it_only():
    network, given, labels = model(), tokens(), torch.arange(5) % CLASSES
    before = network.conditions(given, labels)
    for place in range(POSITIONS):
        changed = given.clone()
        changed[:, place] = (changed[:, place] + 1) % 3
        moved = (network.conditions(changed, labels) - before).abs().amax((0, 2))
        assert moved[: place + 1].max() < 1e-6
        assert bool((moved[place + 1 :] > 1e-4).all())
    other = network.conditions(given, (labels + 1) % CLASSES)
    assert bool(((other - before).abs().amax(2) > 1e-5).all())


@torch.no_grad()
def test_probabilities_of_all_images_of_a_class_sum_to_one():
    network = model(positions=2)
    every = torch.tensor(list(itertools.product(range(3), repeat=4))).view(81, 2, 2)
    for label in range(CLASSES + 1):
        nll = network.nll(every, torch.full((81,), label)).double()
        assert float(nll.sum((1, 2)).neg().exp().sum()) == pytest.approx(1, abs=1e-6)


@torch.no_grad()
@pytest.mark.parametrize("schedule", ["constant", "linear"])
def test_sampling_with_caches_is_sampling_without_them(schedule):
    network, labels = model(), torch.arange(30) % CLASSES
    drawn = network.sample(labels, generator(5), guidance=1.7, schedule=schedule, temperature=0.8)

    random, given = generator(5), torch.zeros(30, POSITIONS, 2, dtype=torch.long)
    for place in range(POSITIONS):
        scale = 1.7 if schedule == "constant" else 1 + 0.7 * (place + 1) / POSITIONS
        for step, dimension in enumerate(network.head.order):
            halves = []
            for classes in (labels, torch.full_like(labels, CLASSES)):
                condition = network.conditions(given, classes)[:, place]
                halves.append(network.head(given[:, place], condition)[step])
            logits = halves[1] + scale * (halves[0] - halves[1])
            given[:, place, dimension] = draw(logits, 0.8, random)
    assert torch.equal(drawn, given)


@torch.no_grad()
def test_samples_have_the_frequencies_that_the_likelihood_says():
    network = model(positions=2, embedding=IndexEmbedding(3, WIDTH), head=IndependentHeads(WIDTH, 1, 3))
    every = torch.tensor(list(itertools.product(range(3), repeat=2))).unsqueeze(-1)
    expected = network.nll(every, torch.ones(9, dtype=torch.long)).sum((1, 2)).neg().exp()
    drawn = network.sample(torch.ones(20_000, dtype=torch.long), generator()).squeeze(-1)
    counts = torch.bincount(drawn[:, 0] * 3 + drawn[:, 1], minlength=9) / 20_000
    torch.testing.assert_close(counts, expected, atol=0.015, rtol=0)


def test_it_reads_what_the_indices_decode_to():
    quantizer = DimensionWiseQuantizer(2, levels_per_dimension=3)
    indices, vectors = VectorEmbedding(2, WIDTH, quantizer), VectorEmbedding(2, WIDTH)
    vectors.linear.load_state_dict(indices.linear.state_dict())
    given = tokens()
    assert torch.equal(indices(given), vectors(quantizer.decode(given)))
    assert isinstance(embedding_of(WIDTH, codebook_size=3), IndexEmbedding)
    assert embedding_of(WIDTH, channels=2, quantizer=quantizer).quantizer is quantizer


def test_the_likelihood_is_the_loss_where_no_class_is_dropped():
    network, given, labels = model(), tokens(), torch.arange(5) % CLASSES
    network.class_dropout = 0.0
    torch.testing.assert_close(network.loss(given, labels, generator()).detach(), network.nll(given, labels).mean())


def test_classes_are_dropped_as_often_as_asked():
    labels = torch.zeros(20_000, dtype=torch.long)
    dropped = without_some_classes(labels, 7, 0.1, generator())
    assert set(dropped.tolist()) == {0, 7}
    assert float((dropped == 7).double().mean()) == pytest.approx(0.1, abs=0.01)
    assert without_some_classes(labels, 7, 1.0, generator()).min() == 7
    assert without_some_classes(labels, 7, 0.0, generator()).max() == 0


@torch.no_grad()
def test_continuous_tokens_go_through_the_same_generator():
    network = model(embedding=VectorEmbedding(2, WIDTH), head=FlowHead(WIDTH, 2, width=8, layers=1, steps=3))
    drawn = network.sample(torch.arange(6) % CLASSES, generator(), guidance=1.5)
    assert drawn.shape == (6, POSITIONS, 2)
    assert drawn.is_floating_point()
    assert float(network.loss(drawn, torch.arange(6) % CLASSES, generator())) > 0


def test_guidance_rises_to_its_scale():
    assert [guidance_at(3.0, share, "linear") for share in (0.0, 0.5, 1.0)] == [1.0, 2.0, 3.0]
    assert guidance_at(3.0, 0.25, "constant") == 3.0


def test_what_does_not_fit_is_refused():
    with pytest.raises(GeneratorError, match=r"\(B, 4, C\)"):
        model().conditions(tokens(positions=3), torch.zeros(5, dtype=torch.long))
    with pytest.raises(GeneratorError, match="constant or linear"):
        model().sample(torch.zeros(2, dtype=torch.long), generator(), schedule="cosine")
