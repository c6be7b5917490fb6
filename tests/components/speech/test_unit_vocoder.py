"""The unit vocoder: streams left out add nothing, speakers by name, mel frames at twice the rate."""

import pytest
import torch

from components.speech.unit_vocoder import UnitVocoder, UnitVocoderError


def small() -> UnitVocoder:
    torch.manual_seed(0)
    return UnitVocoder(codebook_sizes=[5, 7], speakers=["ann", "bob"], bands=6, width=8, blocks=1).eval()


@torch.no_grad()
def test_a_stream_that_is_left_out_adds_nothing_however_it_is_left_out():
    model, speakers = small(), torch.tensor([0])
    units = torch.randint(5, (1, 4, 2))
    other = units.clone()
    other[..., 1] = (other[..., 1] + 1) % 7
    present = torch.tensor([[True, False]])
    one = model(units, speakers, present)
    assert one.shape == (1, 8, 6)
    torch.testing.assert_close(one, model(other, speakers, present))
    absent = units.clone()
    absent[..., 1] = -1
    torch.testing.assert_close(one, model(absent, speakers))
    assert not torch.allclose(one, model(units, speakers))


@torch.no_grad()
def test_speakers_are_known_by_name_and_any_other_is_the_unknown_one():
    model = small()
    assert model.speaker_ids(["bob", "eve", "ann"]).tolist() == [1, model.unknown, 0]
    units = torch.randint(5, (1, 4, 2))
    made = [model(units, model.speaker_ids([name])) for name in ("ann", "bob", "eve")]
    assert not torch.allclose(made[0], made[1])
    assert not torch.allclose(made[1], made[2])


def test_another_number_of_streams_is_refused():
    with pytest.raises(UnitVocoderError, match=r"expected \(B, T, 2\)"):
        small()(torch.zeros(1, 4, 3, dtype=torch.int64), torch.tensor([0]))
