"""Frames of channels: probabilities against sums over all frames, no leak, caches, masks, and reading the text."""

import itertools

import pytest
import torch

from components.audio.channel_groups import ChannelGroupError
from components.audio.frame_masks import FrameMaskError, drawn_bands, drawn_spans
from components.audio.parallel_channel_lm import IGNORED, ParallelChannelError, ParallelChannelLM, Spoken
from components.training.loop import Optimisation, fit
from components.training.weights import load_weights, save_weights

SHAPES = {"parallel": {}, "groups": {"group_size": 2}, "summed": {"channel_width": 0}}


def network(channels=4, levels=5, **changes) -> ParallelChannelLM:
    torch.manual_seed(0)
    settings = {"text_symbols": 3, "width": 16, "layers": 2, "heads": 2, "channel_width": 3, "speaker_width": 2}
    model = ParallelChannelLM(channels=channels, levels=levels, **(settings | changes)).eval()
    # The usual start is so small that hardly anything depends on anything.
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3)
    return model


def batch(model, frames=6, seed=0, **changes) -> Spoken:
    draws = torch.Generator().manual_seed(seed)
    ids = torch.randint(model.levels, (2, frames, model.channels), generator=draws)
    text = torch.randint(3, (2, 3), generator=draws)
    counts, lengths = torch.tensor([frames, frames - 2]), torch.tensor([3, 1])
    return Spoken(ids, counts, text, lengths, torch.eye(2))._replace(**changes)


@torch.no_grad()
def frame_log_probabilities(model, given: Spoken) -> torch.Tensor:
    """Return ln p of every frame, (B, T), as the sum over its channels."""
    laws = model.speech_logits(given).double().log_softmax(-1)[:, : given.frames.shape[1]]
    return laws.gather(-1, given.frames[..., None])[..., 0].sum(-1)


@pytest.mark.parametrize("form", SHAPES)
def test_probabilities_of_all_frames_sum_to_one(form):
    model = network(2, 2, **(SHAPES[form] | ({"group_size": 1} if form == "groups" else {})))
    every = torch.tensor(list(itertools.product(range(model.ids), repeat=2)))
    given = batch(model)
    first = Spoken(
        torch.cat([given.frames[:1].expand(len(every), -1, -1)[:, :2], every[:, None]], 1),
        torch.full((len(every),), 3),
        given.text[:1].expand(len(every), -1),
        given.text_counts[:1].expand(len(every)),
        given.speakers[:1].expand(len(every), -1),
    )
    torch.testing.assert_close(
        frame_log_probabilities(model, first)[:, 2].exp().sum(), torch.tensor(1.0, dtype=torch.float64)
    )


def test_in_parallel_a_frames_log_probability_is_the_sum_of_its_channels():
    model = network(2, 2)
    given = batch(model)
    law = model.speech_logits(given)[0, 3].double().log_softmax(-1)
    joint = torch.stack([law[0, one] + law[1, other] for one in range(model.ids) for other in range(model.ids)])
    torch.testing.assert_close(joint.exp().sum(), torch.tensor(1.0, dtype=torch.float64))
    one, other = given.frames[0, 3].tolist()
    torch.testing.assert_close(frame_log_probabilities(model, given)[0, 3], law[0, one] + law[1, other])


@pytest.mark.parametrize("form", SHAPES)
@torch.no_grad()
def test_a_channel_of_a_frame_changes_the_next_frames_and_in_groups_its_later_channels(form):
    model = network(**SHAPES[form])
    given = batch(model)
    changed = given.frames.clone()
    changed[:, 2, 2] = (changed[:, 2, 2] + 1) % model.levels
    one, other = (model.speech_logits(given._replace(frames=frames)) for frames in (given.frames, changed))
    differs = ((one - other).abs() > 1e-6).flatten(3).any(-1)[0]
    assert not differs[:2].any()
    assert differs[3:].all()
    # Frame 2 itself: a group reads the groups before it, and no channel reads itself or its neighbours in the group.
    assert not differs[2].any()
    changed[:, 2, 0] = (changed[:, 2, 0] + 1) % model.levels
    other = model.speech_logits(given._replace(frames=changed))
    differs = ((one - other).abs() > 1e-6).flatten(3).any(-1)[0, 2]
    assert differs.tolist() == ([False, False, True, True] if form == "groups" else [False] * 4)


@pytest.mark.parametrize("form", SHAPES)
@torch.no_grad()
def test_cached_generation_draws_what_the_whole_network_says(form):
    model = network(**SHAPES[form])
    given = batch(model)
    # Ends aside, every frame is the likeliest given those before; in groups, given its channels before, too.
    model._drawn = lambda logits, *_: logits[..., : model.levels].argmax(-1)
    frames = torch.stack(model.speak(given, 7, torch.Generator(), stop=False))
    laws = model.speech_logits(given._replace(frames=frames))[:, :7, :, : model.levels]
    assert torch.equal(frames, laws.argmax(-1))


@torch.no_grad()
def test_speech_ends_where_most_channels_say_so_and_a_single_one_repeats_its_level():
    model = network()
    wishes = iter([[1, 2, 3, 4], [model.end, 0, 0, 0], [model.end, model.end, 0, 0], [model.end] * 3 + [0]])
    model._drawn = lambda logits, *_: torch.tensor([next(wishes)])
    single = Spoken(*(each[:1] for each in batch(model)[:5]))
    (levels,) = model.speak(single, 9, torch.Generator())
    assert levels.tolist() == [[1, 2, 3, 4], [1, 0, 0, 0], [1, 0, 0, 0]]


def test_speech_that_has_ended_does_not_go_on_while_others_do():
    model = network()
    end, on = [model.end] * 4, [1, 2, 3, 4]
    wishes = iter([[on, on], [end, on], [on, on], [end, on], [end, end]])
    model._drawn = lambda logits, *_: torch.tensor(next(wishes))
    first, second = model.speak(batch(model), 9, torch.Generator())
    assert (len(first), len(second)) == (1, 4)


def test_levels_are_drawn_from_the_law_at_the_temperature_and_special_ids_never_before_the_end():
    model = network()
    logits = torch.tensor([0.0, 1.0, -1.0, 0.5, 0.0, 9.0, 9.0, 0.7]).expand(1, 40_000, 8)
    drawn = model._drawn(logits, 0.5, torch.Generator().manual_seed(0))
    shares = torch.bincount(drawn[0], minlength=8) / 40_000
    allowed = [0, 1, 2, 3, 4, model.end]
    law = (logits[0, 0, allowed] / 0.5).softmax(-1)
    # Four standard errors of a share of a half.
    torch.testing.assert_close(shares[allowed], law, rtol=0, atol=0.01)
    assert shares[model.padding] == shares[model.begin] == 0
    assert (model._drawn(logits, 0.0, torch.Generator()) == 1).all()


@torch.no_grad()
def test_padding_of_frames_and_of_texts_changes_nothing():
    model = network()
    given = batch(model)
    longer = given._replace(
        frames=torch.nn.functional.pad(given.frames, (0, 0, 0, 3)), text=torch.nn.functional.pad(given.text, (0, 2))
    )
    one, other = model.speech_logits(given), model.speech_logits(longer)
    torch.testing.assert_close(one[1, :5], other[1, :5])
    torch.testing.assert_close(model.text_loss(given), model.text_loss(longer))
    torch.testing.assert_close(model.speech_loss(given), model.speech_loss(longer))
    assert model.transcribe(given, 5) == model.transcribe(longer, 5)


@torch.no_grad()
def test_transcripts_are_the_likeliest_symbols_of_the_law_that_the_whole_network_has():
    model = network(speaker_width=0)
    given = batch(model, speakers=None)
    seen = []
    hook = model.text_head.register_forward_hook(lambda _, __, logits: seen.append(logits[:, -1]))
    written = model.transcribe(given, 4)
    hook.remove()
    laws = torch.stack(seen, 1)
    symbols = laws.argmax(-1)
    whole = model.text_logits(given._replace(text=symbols[:, :3], text_counts=torch.tensor([3, 3])))
    torch.testing.assert_close(laws, whole)
    for row, text in zip(symbols.tolist(), written, strict=True):
        assert text == list(itertools.takewhile(lambda symbol: symbol != model.text_end, row))


def test_labels_are_the_frames_then_ends_in_every_channel_then_nothing():
    model = network()
    given = batch(model)
    labels = model.speech_labels(given)
    assert torch.equal(labels[0, :6], given.frames[0])
    assert (labels[1, 4] == model.end).all()
    assert (labels[1, 5:] == IGNORED).all()


@torch.no_grad()
def test_hidden_frames_and_channels_are_not_seen():
    model = network()
    given = batch(model)
    changed = given.frames.clone()
    changed[:, 3] = (changed[:, 3] + 1) % model.levels
    masks = {"hidden_frames": torch.zeros(2, 6, dtype=torch.bool)}
    masks["hidden_frames"][:, 3] = True
    one, other = (model.speech_logits(given._replace(frames=each, **masks)) for each in (given.frames, changed))
    torch.testing.assert_close(one, other)
    bands = {"hidden_channels": torch.tensor([[True, False, False, False]] * 2)}
    changed = given.frames.clone()
    changed[..., 0] = (changed[..., 0] + 1) % model.levels
    one, other = (model.text_logits(given._replace(frames=each, **bands)) for each in (given.frames, changed))
    torch.testing.assert_close(one, other)


def test_spans_hide_the_share_that_was_asked_for_and_only_inside():
    hidden = drawn_spans(torch.tensor([400] * 200), 500, 0.35, 5, torch.Generator().manual_seed(0))
    assert hidden[:, :400].float().mean() == pytest.approx(0.35, abs=0.01)
    assert not hidden[:, 400:].any()
    runs = hidden[0, :400].int().diff(prepend=torch.zeros(1), append=torch.zeros(1))
    lengths = (runs == -1).nonzero().flatten() - (runs == 1).nonzero().flatten()
    assert lengths[1:-1].min() >= 5
    with pytest.raises(FrameMaskError, match="share is 1"):
        drawn_spans(torch.tensor([4]), 4, 1.0, 5, torch.Generator())


def test_bands_are_neighbours_of_at_most_the_width():
    hidden = drawn_bands(500, 40, 8, torch.Generator().manual_seed(0))
    assert hidden.sum(1).min() == 0
    assert hidden.sum(1).max() == 8
    assert ((hidden.int().diff(dim=1) == 1).sum(1) <= 1).all()


def test_weights_are_saved_and_loaded(tmp_path):
    model = network(group_size=2)
    save_weights(model, tmp_path / "model.safetensors")
    other = network(group_size=2, text_symbols=3)
    with torch.no_grad():
        other.table.weight.zero_()
    load_weights(other, tmp_path / "model.safetensors")
    assert torch.equal(model.table.weight, other.table.weight)


def test_what_cannot_be_divided_or_read_is_refused():
    with pytest.raises(ChannelGroupError, match="groups of 3"):
        network(group_size=3)
    with pytest.raises(ParallelChannelError, match="shared table"):
        network(group_size=2, channel_width=0)
    model = network()
    unnamed = batch(model, speakers=None)
    with pytest.raises(ParallelChannelError, match="told the speaker"):
        model.speech_loss(unnamed)
    with pytest.raises(ParallelChannelError, match="expected"):
        network().read_frames(torch.zeros(1, 2, 3, dtype=torch.int64))


def test_a_network_trained_with_a_hidden_history_reads_its_text():
    # Every symbol is spoken as three frames of one level: without the text nothing tells which.
    torch.manual_seed(0)
    model = ParallelChannelLM(channels=2, levels=4, text_symbols=4, width=32, layers=2, heads=2, channel_width=4)

    def drawn(count: int, generator: torch.Generator) -> Spoken:
        text = torch.randint(4, (count, 2), generator=generator)
        frames = text.repeat_interleave(3, 1)[..., None].expand(-1, -1, 2)
        counts = torch.full((count,), 6)
        hidden = drawn_spans(counts, 6, 0.4, 3, generator)
        return Spoken(frames, counts, text, torch.full((count,), 2), hidden_frames=hidden)

    fit(
        model,
        lambda step, generator: drawn(16, generator),
        lambda model, given, _: (model.speech_loss(given), {}),
        Optimisation(200, 5e-3, 10),
        seed=0,
    )
    given = drawn(64, torch.Generator().manual_seed(9))._replace(hidden_frames=None)
    read = model.speak(given, 9, torch.Generator().manual_seed(1), temperature=0)
    blind = model.speak(given._replace(text_counts=given.text_counts * 0), 9, torch.Generator(), temperature=0)

    def right(spoken: list[torch.Tensor]) -> float:
        same = [len(each) == 6 and torch.equal(each, want) for each, want in zip(spoken, given.frames, strict=True)]
        return sum(same) / len(same)

    assert right(read) > 0.9
    assert right(blind) < 0.3
