"""Fine-tuning with and without the shift: what it reads and computes, and what its explanations add up to."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from components.analysis.attribution import Quadrature, contributions, pair_matrix
from components.analysis.attribution_path import EncoderPath, reference_ids
from components.encoders.random_sentence import random_sentence_encoder
from components.encoders.sentence import SentenceEncoder
from components.finetune.frozen_states import FrozenStates, FrozenStatesError, frozen_states
from components.finetune.siamese import (
    SiameseBatches,
    SiameseError,
    UpperLayers,
    reference_states,
    shifted_vectors,
    siamese_loss,
)
from components.training.loop import Optimisation, fit

FIRST = ["a b c", "d e", "f g h a b", "c", "b c d e"]
SECOND = ["a b", "e d f", "h g f a b", "a a c", "g"]
TARGET = torch.tensor([0.8, 0.4, 1.0, 0.2, 0.0])


@pytest.fixture(scope="module")
def encoder() -> SentenceEncoder:
    return random_sentence_encoder(list("abcdefgh"), width=16, layers=3)


def batches(encoder: SentenceEncoder, start: int = 1) -> SiameseBatches:
    return SiameseBatches(encoder, encoder.token_ids(FIRST), encoder.token_ids(SECOND), TARGET, start)


def reference_of(encoder: SentenceEncoder, length: int) -> torch.Tensor:
    return reference_ids(torch.tensor([length]), (2, 3, 0))


def shifted_by_hand(encoder: SentenceEncoder, text: str) -> torch.Tensor:
    """e(x) - e(r_x) of one text, on its own."""
    ids = encoder.tokenize([text]).ids
    both = (ids, reference_of(encoder, ids.shape[1]))
    return torch.sub(*(encoder.layers_from(encoder.embed_tokens(part), None).mean(1) for part in both))[0]


@pytest.mark.parametrize("stop", [0, 2, 3])
def test_frozen_states_are_those_of_each_text_alone_whatever_their_order(encoder, stop):
    ids = encoder.token_ids(FIRST)
    states = frozen_states(encoder, ids, stop, batch_size=2)
    padded, mask = states.batch(torch.tensor([2, 0, 3]))
    for row, number in enumerate((2, 0, 3)):
        alone = encoder.layers_from(encoder.embed_tokens(torch.tensor([ids[number]])), None, 0, stop)[0]
        torch.testing.assert_close(padded[row][mask[row]], alone, atol=1e-6, rtol=1e-5)
        assert (padded[row][~mask[row]] == 0).all()
    assert mask.sum(1).tolist() == [7, 5, 3]


def test_states_that_do_not_fit_their_lengths_are_refused(encoder):
    with pytest.raises(FrozenStatesError, match="7 tokens in all, but 6"):
        FrozenStates(torch.zeros(6, 2), torch.tensor([3, 4]))
    with pytest.raises(FrozenStatesError, match="no texts"):
        frozen_states(encoder, [], 1)


@pytest.mark.parametrize("shifted", [True, False])
def test_the_upper_layers_give_the_vector_of_the_whole_encoder_less_its_references(encoder, shifted):
    model = UpperLayers(encoder, 1, shifted=shifted)
    batch = batches(encoder).batch(torch.tensor([2, 0, 4]))
    with torch.no_grad():
        found = model(batch.texts, batch.references)
    texts = [*(FIRST[row] for row in (2, 0, 4)), *(SECOND[row] for row in (2, 0, 4))]
    for vector, text in zip(found, texts, strict=True):
        if shifted:
            expected = shifted_by_hand(encoder, text)
            assert vector.norm() > 1e-2
        else:
            expected = encoder.layers_from(encoder.embed_tokens(encoder.tokenize([text]).ids), None).mean(1)[0]
        torch.testing.assert_close(vector, expected, atol=2e-6, rtol=1e-5)


def test_a_batch_holds_one_reference_for_each_length_in_it(encoder):
    batch = batches(encoder).batch(torch.tensor([0, 1, 2]))
    lengths = batch.texts.mask.sum(1)
    assert batch.references.mask.sum(1).tolist() == sorted(set(lengths.tolist())) == [4, 5, 7]
    assert torch.equal(batch.references.mask.sum(1)[batch.texts.reference], lengths)
    assert torch.equal(batch.target, TARGET[:3])


def test_of_the_shifted_model_the_similarity_to_a_reference_is_zero(encoder):
    specials = [row.tolist() for length in (2, 4, 7) for row in reference_of(encoder, length)]
    texts = encoder.token_ids(FIRST)
    references = shifted_vectors(encoder, specials, shifted=True)
    others = shifted_vectors(encoder, texts, shifted=True)
    assert (references @ others.T).abs().max() < 1e-5
    assert (shifted_vectors(encoder, specials, shifted=False) @ others.T).abs().max() > 0.1


@pytest.mark.parametrize("shifted", [True, False])
def test_vectors_are_those_of_each_text_alone(encoder, shifted):
    found = shifted_vectors(encoder, encoder.token_ids(FIRST), shifted=shifted, batch_size=2)
    if shifted:
        expected = torch.stack([shifted_by_hand(encoder, text) for text in FIRST])
    else:
        expected = encoder.encode(FIRST)
        found = F.normalize(found, dim=-1)
    torch.testing.assert_close(found, expected, atol=2e-6, rtol=1e-5)


def test_the_loss_is_the_squared_distance_of_cosines_from_targets(encoder):
    model = UpperLayers(encoder, 1, shifted=True)
    loss = siamese_loss(model, batches(encoder).batch(torch.arange(5)))
    cosines = [
        float(F.cosine_similarity(*(shifted_by_hand(encoder, text) for text in pair), dim=0))
        for pair in zip(FIRST, SECOND, strict=True)
    ]
    assert float(loss.detach()) == pytest.approx(np.mean((np.array(cosines) - TARGET.numpy()) ** 2), abs=1e-5)


def test_gradients_flow_through_the_reference_too(encoder):
    model = UpperLayers(encoder, 1, shifted=True)
    batch = batches(encoder).batch(torch.arange(5))
    whole = torch.autograd.grad(siamese_loss(model, batch), list(model.parameters()), allow_unused=True)

    original = model.embed
    model.embed = lambda states, mask: (
        original(states, mask).detach() if states is batch.references.states else original(states, mask)
    )
    stopped = torch.autograd.grad(siamese_loss(model, batch), list(model.parameters()), allow_unused=True)
    assert max(float((one - other).abs().max()) for one, other in zip(whole, stopped, strict=True)) > 1e-4


def tuned(encoder: SentenceEncoder, *, shifted: bool, steps: int = 60) -> tuple[UpperLayers, list[float]]:
    model, drawn = UpperLayers(encoder, 1, shifted=shifted), batches(encoder)
    curves = fit(
        model,
        lambda step, generator: drawn.batch(torch.randint(5, (5,), generator=generator)),
        lambda model, batch, generator: (siamese_loss(model, batch), {}),
        Optimisation(steps, 3e-3),
        seed=0,
        log_every=steps // 3,
    )
    frame = curves.frame()
    return model, frame.filter(frame["series"] == "loss")["value"].to_list()


def test_training_lowers_the_loss_and_the_tuned_encoder_is_the_trained_one(encoder):
    model, losses = tuned(encoder, shifted=True)
    assert losses[-1] < 0.3 * losses[0]
    whole = model.into(encoder)
    assert not any(parameter.requires_grad for parameter in whole.parameters())
    batch = batches(encoder).batch(torch.arange(5))
    with torch.no_grad():
        expected = model(batch.texts, batch.references)
    texts = [*encoder.token_ids(FIRST), *encoder.token_ids(SECOND)]
    torch.testing.assert_close(shifted_vectors(whole, texts, shifted=True), expected, atol=3e-6, rtol=1e-5)
    before = dict(encoder.named_parameters())
    changed = {name for name, part in whole.named_parameters() if not torch.equal(part, before[name])}
    assert {name.split(".")[1] for name in changed if name.startswith("layers")} == {"1", "2"}
    assert all(name.startswith("layers") for name in changed)


def test_attributions_of_a_tuned_shifted_model_add_up_to_its_cosine(encoder):
    whole = tuned(encoder, shifted=True)[0].into(encoder)
    path, rule = EncoderPath(whole, 2), [Quadrature(50)]
    ids = [whole.tokenize([text]).ids for text in ("a b c d", "h g f a b")]
    parts = [contributions(path.embed, *path.ends(part), rule)[0][0] for part in ids]
    vectors = [shifted_by_hand(whole, text).double() for text in ("a b c d", "h g f a b")]
    cosine = float(F.cosine_similarity(*vectors, dim=0))
    total = float(pair_matrix(*parts).sum() / (vectors[0].norm() * vectors[1].norm()))
    assert total == pytest.approx(cosine, abs=0.01)
    assert abs(cosine) > 0.1


def test_references_are_computed_for_occurring_lengths_only(encoder):
    states, rows = reference_states(encoder, torch.tensor([5, 3, 5]), 2)
    assert len(states) == 2
    assert rows.tolist() == [-1, -1, -1, 0, -1, 1]
    alone = encoder.layers_from(encoder.embed_tokens(reference_of(encoder, 5)), None, 0, 2)[0]
    torch.testing.assert_close(states.batch(torch.tensor([1]))[0][0], alone, atol=1e-6, rtol=1e-5)


def test_layers_and_pairs_that_do_not_exist_are_refused(encoder):
    with pytest.raises(SiameseError, match="layers 0 to 2"):
        UpperLayers(encoder, 3, shifted=False)
    with pytest.raises(SiameseError, match="1 first texts, 2 second"):
        SiameseBatches(encoder, [[2, 3]], [[2, 3], [2, 3]], TARGET[:1], 1)
