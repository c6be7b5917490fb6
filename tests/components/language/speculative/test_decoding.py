import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from components.language.causal_lm import CausalLM, CausalLMConfig, ContextOverflow
from components.language.generation import generate
from components.language.speculative import adjacency, prompt_lookup, undrafted
from components.language.speculative.choices import CoupledSampling, Sampling
from components.language.speculative.decoding import EmptyPrompt, continue_plainly, decode

SIZE = 11


def random_model(dtype: torch.dtype = torch.float64, layers: int = 2) -> CausalLM:
    torch.manual_seed(0)
    model = CausalLM(CausalLMConfig(SIZE, 64, width=16, layers=layers, heads=2, positions="rotary"))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4)
    return model.to(dtype).eval()


@pytest.fixture(scope="module")
def model() -> CausalLM:
    return random_model()


def plain(model: CausalLM, prompt: list[int], count: int) -> list[int]:
    """Greedy decoding without cache: one whole pass per token."""
    text = list(prompt)
    for _ in range(count):
        text.append(int(model(model.with_start(torch.tensor([text])))[0, -1].argmax()))
    return text[len(prompt) :]


def drafters(seed: int):
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(SIZE, (SIZE, 8), generator=generator)
    return {
        "hot": adjacency.build(SIZE),
        "cold": adjacency.build(SIZE, keep=False),
        "a random matrix": adjacency.build(SIZE, start=drawn),
        "a random matrix that stays": adjacency.build(SIZE, start=drawn, refresh=False),
        "zeros that stay": adjacency.build(SIZE, refresh=False),
        "one token everywhere": adjacency.build(SIZE, start=torch.full((SIZE, 8), 3), refresh=False),
        "prefill": adjacency.build(SIZE, update_on_prefill=True),
        "chain": adjacency.build(SIZE, branching=False),
        "24 drafts": adjacency.build(SIZE, drafts=24),
        "two candidates": adjacency.build(SIZE, k=2),
        "prompt lookup": prompt_lookup.build(SIZE),
        "no drafts": undrafted.build(SIZE),
    }


prompts = st.lists(st.lists(st.integers(0, SIZE - 1), min_size=1, max_size=12), min_size=1, max_size=2)


@settings(deadline=None, derandomize=True, max_examples=5)
@given(prompts, st.integers(0, 100))
def test_every_drafter_gives_the_tokens_of_plain_greedy_decoding(texts, seed):
    model = random_model()
    expected = [plain(model, prompt, 18) for prompt in texts]
    assert continue_plainly(model, texts, 18) == expected
    for name, drafter in drafters(seed).items():
        for prompt, tokens in zip(texts, expected, strict=True):  # one after the other: hot matrices carry over
            decoded = decode(model, prompt, 18, drafter)
            assert decoded.tokens == tokens, name
            assert min(decoded.accepted) >= 1
            assert sum(decoded.accepted) == len(decoded.tokens) == 18
            assert [len(path) + 1 for path in decoded.paths] == decoded.accepted


@settings(deadline=None, derandomize=True, max_examples=5)
@given(prompts, st.integers(0, 100))
def test_with_coupled_noise_every_drafter_draws_the_same_tokens(texts, seed):
    model = random_model()
    rules = [CoupledSampling(0.7, 65, SIZE, 7 * seed + place) for place in range(len(texts))]
    expected = continue_plainly(model, texts, 18, rules)
    for name, drafter in drafters(seed).items():
        drawn = [decode(model, prompt, 18, drafter, rule).tokens for prompt, rule in zip(texts, rules, strict=True)]
        assert drawn == expected, name


def test_coupled_noise_makes_other_texts_than_greedy_decoding(model):
    rules = [CoupledSampling(0.7, 65, SIZE, place) for place in range(8)]
    drawn = continue_plainly(model, [[1, 2, 3]] * 8, 12, rules)
    assert len({tuple(tokens) for tokens in drawn}) > 4


def test_plain_continuations_of_one_length_are_those_of_the_generator(model):
    texts = torch.randint(SIZE, (5, 7), generator=torch.Generator().manual_seed(0))
    expected = generate(model, texts, 9, torch.Generator(), temperature=0)
    assert continue_plainly(model, texts.tolist(), 9) == expected.tolist()


@pytest.mark.slow
def test_sampled_continuations_have_the_models_frequencies(model):
    count, choose = 1500, Sampling(1.0, torch.Generator().manual_seed(0))
    drafter = adjacency.build(SIZE, drafts=24)
    pairs = torch.zeros(SIZE, SIZE, dtype=torch.float64)
    for _ in range(count):
        first, second = decode(model, [4, 2], 2, drafter, choose).tokens
        pairs[first, second] += 1
    texts = torch.tensor([[4, 2, token] for token in range(SIZE)])
    rows = model.along(texts).exp()
    expected = count * rows[0, 2][:, None] * rows[:, 3]
    assert bool(((pairs - expected).abs() < 5 * expected.sqrt() + 1).all())


@pytest.mark.parametrize("name", ["hot", "prompt lookup", "no drafts"])
def test_nothing_stands_behind_the_stop_token(model, name):
    full = plain(model, [1, 2], 20)
    for stop in set(full):
        expected = full[: full.index(stop) + 1]
        decoded = decode(model, [1, 2], 20, drafters(0)[name], stop=stop)
        assert decoded.tokens == expected
        assert sum(decoded.accepted) == len(expected)
        assert continue_plainly(model, [[1, 2], [3]], 20, stop=stop)[0] == expected


def test_a_stop_token_at_the_end_of_the_prompt_stops_nothing(model):
    full = plain(model, [1, 2], 6)
    assert decode(model, [1, 2], 6, adjacency.build(SIZE), stop=2).tokens == (
        full[: full.index(2) + 1] if 2 in full else full
    )


def test_drafts_are_accepted_where_the_text_loops(model):
    decoded = decode(model, [1, 2], 40, adjacency.build(SIZE))
    assert len(decoded.tokens) / len(decoded.accepted) > 2


def test_prompts_without_tokens_and_texts_beyond_the_context_are_refused(model):
    with pytest.raises(EmptyPrompt, match="at least one token"):
        decode(model, [], 5, undrafted.build(SIZE))
    with pytest.raises(EmptyPrompt, match="at least one token"):
        continue_plainly(model, [[1], []], 5)
    decode(model, [1] * 44, 14, adjacency.build(SIZE))
    with pytest.raises(ContextOverflow, match=r"drafts of 6 need 65 positions, the model has 64"):
        decode(model, [1] * 45, 14, adjacency.build(SIZE))
    with pytest.raises(ContextOverflow):
        continue_plainly(model, [[1] * 60], 10)


@pytest.mark.gpu
def test_a_gpu_decodes_the_same_tokens():
    model = random_model()
    expected = decode(model, [1, 2, 3], 30, adjacency.build(SIZE))
    found = decode(model.to("cuda"), [1, 2, 3], 30, adjacency.build(SIZE, "cuda"))
    assert found == expected
