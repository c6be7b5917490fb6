import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from components.language.causal_lm import CausalLM, CausalLMConfig
from components.language.speculative.choices import Greedy, Sampling
from components.language.speculative.tree import DraftTree, recycling_tree
from components.language.speculative.tree_verify import longest_path, tree_logits, verify
from components.nn.transformer import KeyValueCache

SIZE = 13


@pytest.fixture(scope="module", params=["rotary", "learned"])
def model(request) -> CausalLM:
    torch.manual_seed(0)
    model = CausalLM(CausalLMConfig(SIZE, 64, width=32, layers=2, heads=4, positions=request.param))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2)
    return model.eval()


def alone(model: CausalLM, tokens: list[int]) -> torch.Tensor:
    """Logits behind the last of `tokens`, by a plain pass without cache or mask."""
    return model(model.with_start(torch.tensor([tokens])))[0, -1]


@torch.no_grad()
def test_every_node_gets_the_logits_of_a_plain_pass_over_its_path_also_after_compactions(model):
    generator = torch.Generator().manual_seed(1)
    tree = recycling_tree()
    text = torch.randint(SIZE, (9,), generator=generator).tolist()
    cache = KeyValueCache(40 + tree.nodes)
    model(model.with_start(torch.tensor([text[:-1]])), cache)
    accepted = []
    for step in range(5):
        table = torch.randint(SIZE, (SIZE, 8), generator=generator)
        ahead = list(text)
        for _ in range(step):  # the first `step` drafts are right, as far as one row per token can say
            table[ahead[-1], 0] = alone(model, ahead).argmax()
            ahead.append(int(table[ahead[-1], 0]))
        tokens = tree.fill(table, text[-1])
        found = verify(model, tree, tokens, cache, Greedy())
        for node, path in enumerate(tree.paths):
            trail = [int(tokens[tree.paths.index(path[:length])]) for length in range(1, len(path) + 1)]
            assert (found.logits[node] - alone(model, text + trail)).abs().max() < 1e-5
        text += found.tokens
        accepted.append(len(found.tokens))
        assert cache.length == len(text)  # the start token is in it, the new root is not
    assert max(accepted) > 1


@torch.no_grad()
def test_wrong_positions_or_a_plain_causal_mask_would_be_noticed(model):
    tree = recycling_tree()
    text = [3, 1, 4, 1, 5]
    tokens = tree.fill(torch.randint(SIZE, (SIZE, 8), generator=torch.Generator().manual_seed(0)), 2)
    right, flat, causal = (KeyValueCache(100) for _ in range(3))
    for cache in (right, flat, causal):
        model(model.with_start(torch.tensor([text])), cache)
    truth = tree_logits(model, tree, tokens, right)
    past = flat.length
    in_a_row = (torch.arange(tree.nodes) + past).clamp(max=63)
    assert (model(tokens[None], flat, places=in_a_row, mask=tree.mask(past))[0] - truth).abs().max() > 0.01
    assert (model(tokens[None], causal, places=tree.depths + past)[0] - truth).abs().max() > 0.01


def brute_force_path(tree: DraftTree, tokens: list[int], chosen: list[int]) -> list[int]:
    best = [0]
    for leaf in tree.leaves.tolist():
        right = [0]
        for parent, child in itertools.pairwise(leaf):
            if child < 0 or tokens[child] != chosen[parent]:
                break
            right.append(child)
        if len(right) > len(best):
            best = right
    return best


trees = st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=4).map(tuple), max_size=14).map(
    lambda found: DraftTree({path[:length] for path in found for length in range(1, len(path) + 1)})
)


@settings(deadline=None, derandomize=True, max_examples=60)
@given(trees, st.randoms(use_true_random=False))
def test_the_longest_right_path_is_found_and_the_first_of_several(tree, random):
    tokens = [random.randrange(3) for _ in range(tree.nodes)]
    chosen = [random.randrange(3) for _ in range(tree.nodes)]
    found = longest_path(tree, torch.tensor(tokens), torch.tensor(chosen))
    expected = brute_force_path(tree, tokens, chosen)
    assert found.tolist() == [*expected, *[-1] * (tree.depth + 1 - len(expected))]


@settings(deadline=None, derandomize=True, max_examples=60)
@given(trees, st.randoms(use_true_random=False))
def test_with_independent_draws_one_descends_to_the_first_child_that_was_drawn(tree, random):
    tokens = [random.randrange(2) for _ in range(tree.nodes)]
    chosen = [random.randrange(2) for _ in range(tree.nodes)]
    node, expected = 0, [0]
    while True:
        children = [child for child in range(1, tree.nodes) if tree.parents[child] == node]
        node = next((child for child in children if tokens[child] == chosen[node]), None)
        if node is None:
            break
        expected.append(node)
    found = longest_path(tree, torch.tensor(tokens), torch.tensor(chosen), independent=True)
    assert [node for node in found.tolist() if node >= 0] == expected


def test_sampled_tokens_have_the_models_law_although_siblings_carry_the_same_token():
    """Two children of the root carry token 0: taking the longer of their two paths would favour what follows it."""
    tree = DraftTree([(0,), (1,), (2,), (0, 0), (1, 0)])
    tokens = torch.tensor([2, 0, 0, 1, 1, 1])
    first = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    behind = torch.tensor([[0.2, 0.5, 0.3], [0.6, 0.1, 0.3], [0.3, 0.3, 0.4]], dtype=torch.float64)
    logits = torch.stack([first, *behind[tokens[1:]]]).log()
    choose, count = Sampling(1.0, torch.Generator().manual_seed(0)), 6000
    pairs = torch.zeros(3, 3)
    for _ in range(count):
        chosen = choose(logits, tree.depths).argmax(-1)
        path = [node for node in longest_path(tree, tokens, chosen, independent=True).tolist() if node >= 0]
        if len(path) > 1:
            pairs[int(chosen[0]), int(chosen[path[1]])] += 1
    # Token 2 is in no draft, so nothing is known of what follows it.
    expected = count * first[:2, None] * behind[:2]
    assert bool(((pairs[:2] - expected).abs() < 4.5 * expected.sqrt()).all())
    assert not pairs[2].any()


@settings(deadline=None, derandomize=True, max_examples=60)
@given(st.integers(0, 2**31 - 1))
def test_a_tree_of_the_root_alone_gives_one_token(seed):
    torch.manual_seed(seed)
    model = CausalLM(CausalLMConfig(SIZE, 16, width=8, layers=1, heads=2, positions="rotary")).eval()
    cache = KeyValueCache(16)
    model(model.with_start(torch.tensor([[1, 2]])), cache)
    found = verify(model, DraftTree([]), torch.tensor([3]), cache, Greedy())
    assert found.nodes == [0]
    assert found.tokens == [int(alone(model, [1, 2, 3]).argmax())]
    assert cache.length == 4
