"""Which prompts are judged."""

from pathlib import Path

import pytest
import torch

from components.language.fill_in_middle import END
from components.language.pretrained import LanguageModel, load_language_model
from components.tokenizers.text.byte_level import to_bytes
from flows.studies.decoding import standin
from flows.studies.decoding.token_recycling import prompts
from flows.studies.decoding.token_recycling.params import TrainParams
from flows.studies.decoding.token_recycling.prompts import Prompt, TooFewPrompts

PARAMS = TrainParams(
    prompt_seeds=(0, 1), candidates=4, judged_prompts=2, fewest_judged=1, shortest_prompt=4, longest_prompt=24,
    new_tokens=8, distinct_share=0.5,
)  # fmt: skip


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("standins")
    for name, make in (
        ("python-source", standin.make),
        ("gsm8k", standin.make),
        ("lm-code-2m", standin.make_base),
        ("lm-math-2m", standin.make_base),
    ):
        (root / name).mkdir()
        make(name, root / name)
    return root


def language_of(root: Path, model: str) -> LanguageModel:
    return load_language_model(root / prompts.BASES[model])


@pytest.mark.parametrize("model", ["code", "math"])
def test_candidates_are_held_out_have_the_wanted_lengths_and_no_end(root, model):
    language = language_of(root, model)
    found = prompts.candidates(root / prompts.DATA[model], model, language, PARAMS)
    assert [prompt.name for prompt in found] == list(range(len(found)))
    assert all(4 <= len(prompt.tokens) <= 24 for prompt in found)
    assert not any(language.specials[END] in prompt.tokens for prompt in found)
    spelled = [to_bytes(language.tokenizer.decode(prompt.tokens)).decode() for prompt in found]
    text = "\n".join(prompts.corpora.documents(root / prompts.DATA[model], "test"))
    for beginning in spelled:
        places = [0] if text.startswith(beginning) else []
        assert places or f"\n{beginning}" in text  # at the start of a line
        assert model == "code" or beginning.endswith("\nAnswer:")


def test_sets_of_two_seeds_share_no_prompt_and_a_set_that_does_not_exist_is_refused(root):
    everything = prompts.candidates(root / "gsm8k", "math", language_of(root, "math"), PARAMS)
    one, two = (prompts._of_seed(everything, seed, PARAMS) for seed in (0, 1))
    assert len(one) == len(two) == 4
    assert not {prompt.name for prompt in one} & {prompt.name for prompt in two}
    with pytest.raises(TooFewPrompts, match="choose smaller seeds or fewer candidates"):
        prompts._of_seed(everything, 100, PARAMS)


def continued(language: LanguageModel, prompt: Prompt, count: int) -> list[int]:
    """Greedy continuation without cache."""
    text = list(prompt.tokens)
    while len(text) < len(prompt.tokens) + count and text[-1] != language.specials[END]:
        row = language.model(language.model.with_start(torch.tensor([text])))[0, -1]
        text.append(int(row.argmax()))
    return text[len(prompt.tokens) :]


@pytest.mark.parametrize("share", [0.0, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("model", ["code", "math"])
@torch.no_grad()
def test_those_qualify_in_order_whose_plain_continuation_is_full_and_does_not_repeat_itself(root, model, share):
    language = language_of(root, model)
    params = PARAMS.model_copy(update={"distinct_share": share})
    own = prompts.candidates(root / prompts.DATA[model], model, language, params)[:12]
    expected = []
    for prompt in own:
        tokens = continued(language, prompt, 8)
        grams = [tuple(tokens[place : place + 4]) for place in range(len(tokens) - 3)]
        if len(tokens) == 8 and len(set(grams)) / len(grams) >= share:
            expected.append(prompt)
    assert prompts._qualifying(language, own, 100, params) == (expected, 12)


def test_no_more_candidates_are_continued_than_are_needed(root, monkeypatch):
    monkeypatch.setattr(prompts, "_CHUNK", 3)
    language = language_of(root, "math")
    params = PARAMS.model_copy(update={"distinct_share": 0.0})
    own = prompts.candidates(root / "gsm8k", "math", language, params)[:12]
    good, looked_at = prompts._qualifying(language, own, 4, params)
    everything, _ = prompts._qualifying(language, own, 100, params)
    assert looked_at % 3 == 0
    assert looked_at < 12
    assert good == everything[: len(good)]
    assert len(good) >= 4
