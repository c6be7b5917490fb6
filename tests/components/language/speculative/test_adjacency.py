import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from components.language.causal_lm import CausalLM, CausalLMConfig
from components.language.speculative import adjacency
from components.language.speculative.adjacency import AdjacencyError, AdjacencyMatrix, Recycler
from components.language.speculative.decoding import continue_plainly, decode
from components.language.speculative.tree import recycling_tree


@pytest.fixture(scope="module")
def model() -> CausalLM:
    torch.manual_seed(0)
    model = CausalLM(CausalLMConfig(300, 128, width=32, layers=2, heads=4, positions="rotary"))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4)
    return model.double().eval()


def test_32000_tokens_of_8_candidates_take_1_024_000_bytes():
    matrix = AdjacencyMatrix(32_000, 8)
    assert matrix.bytes == 1_024_000
    assert matrix.table.untyped_storage().nbytes() == 1_024_000
    assert not matrix.table.any()


@settings(deadline=None, derandomize=True, max_examples=40)
@given(st.integers(1, 20), st.integers(0, 2**31 - 1))
def test_after_an_update_a_row_is_the_top_k_of_the_last_node_with_that_token_and_no_other_row_changed(nodes, seed):
    generator = torch.Generator().manual_seed(seed)
    matrix = AdjacencyMatrix.of(torch.randint(12, (12, 4), generator=generator))
    before = matrix.table.clone()
    tokens = torch.randint(6, (nodes,), generator=generator)
    logits = torch.randn(nodes, 12, generator=generator)
    matrix.update(tokens, logits)
    last = {int(token): node for node, token in enumerate(tokens)}
    for token in range(12):
        expected = before[token].tolist()
        if token in last:
            expected = sorted(range(12), key=lambda other: -logits[last[token], other])[:4]
        assert matrix.table[token].tolist() == expected
    assert matrix.touched.nonzero()[:, 0].tolist() == sorted(last)
    assert int(matrix.writes) == len(last)


class Recorder(Recycler):
    """Keeps what it drafted and learned."""

    def observe(self, tokens, logits):
        before = self.matrix.table.clone()
        super().observe(tokens, logits)
        self.seen = [*getattr(self, "seen", []), (tokens, logits, before, self.matrix.table.clone())]


def test_every_step_writes_the_rows_of_the_tokens_in_its_tree_and_only_those(model):
    drafter = Recorder(AdjacencyMatrix(300), recycling_tree())
    decode(model, [5, 6, 7], 40, drafter)
    assert len(drafter.seen) > 5
    for tokens, logits, before, after in drafter.seen:
        best = logits.topk(8).indices
        for row in range(300):
            carriers = (tokens == row).nonzero()[:, 0]
            if len(carriers):
                assert any(after[row].tolist() == best[node].tolist() for node in carriers)
                assert after[row].tolist() == best[carriers[-1]].tolist()
            else:
                assert torch.equal(after[row], before[row])


@torch.no_grad()
def test_a_frozen_matrix_of_the_models_own_successors_accepts_7_tokens_in_every_step():
    torch.manual_seed(0)
    model = CausalLM(CausalLMConfig(60, 64, width=64, layers=2, heads=2, positions="rotary")).double().eval()
    # A model that counts, so that no token occurs twice and one row of M says what follows.
    model.embedding.weight.mul_(500)
    model.output.weight.copy_(model.embedding.weight[:60].roll(1, 0))
    stretch = continue_plainly(model, [[5]], 28)[0]
    assert len({5, *stretch}) == 29
    text = torch.tensor([5, *stretch])
    table = torch.zeros(60, 8, dtype=torch.int32)
    table[text[:-1], 0] = text[1:].int()
    drafter = adjacency.build(60, start=table, refresh=False)
    decoded = decode(model, [5], 28, drafter)
    assert decoded.accepted == [7, 7, 7, 7]
    assert decoded.paths == [(0,) * 6] * 4
    assert decoded.tokens == stretch
    assert torch.equal(drafter.matrix.table, table)


def test_hot_keeps_the_matrix_from_prompt_to_prompt_and_cold_starts_anew(model):
    hot, cold, frozen = adjacency.build(300), adjacency.build(300, keep=False), adjacency.build(300, refresh=False)
    once = {}
    for drafter in (hot, cold, frozen):
        decode(model, [1, 2, 3], 30, drafter)
        once[drafter] = drafter.matrix.table.clone()
    assert once[hot].any()
    assert not once[frozen].any()
    assert torch.equal(once[hot], once[cold])
    known = torch.tensor([4])
    for drafter in (hot, cold):
        drafter.begin(known, None)
    assert torch.equal(hot.matrix.table, once[hot])
    assert not cold.matrix.table.any()


def test_the_prompts_own_logits_are_written_only_where_that_is_asked_for(model):
    prompt = [7, 8, 9, 8, 10]
    rows = model.along(torch.tensor([prompt]))[0]
    for switch in (False, True):
        drafter = Recorder(AdjacencyMatrix(300), recycling_tree(), update_on_prefill=switch)
        decode(model, prompt, 1, drafter)
        before = drafter.seen[0][2]
        for token, place in ((7, 1), (8, 4), (9, 3)):  # 8 stands twice: the later place counts
            expected = rows[place].topk(8).indices.tolist() if switch else [0] * 8
            assert before[token].tolist() == expected
        assert not before[10].any()


def test_a_tree_that_asks_for_more_candidates_than_there_are_is_refused():
    with pytest.raises(AdjacencyError, match=r"candidate 7, the matrix has 4 .* tree\.below\(k\)"):
        Recycler(AdjacencyMatrix(10, 4), recycling_tree())
    with pytest.raises(AdjacencyError, match=r"\(10, 2\), expected \(10, 8\)"):
        adjacency.build(10, start=torch.zeros(10, 2))


def test_ablations_have_the_trees_that_they_name():
    assert adjacency.build(20).nodes == 81
    assert [adjacency.build(20, drafts=drafts).nodes for drafts in (8, 24, 48)] == [9, 25, 49]
    assert (adjacency.build(20, branching=False).nodes, adjacency.build(20, branching=False).depth) == (7, 6)
    tree, _ = adjacency.build(20, k=2).draft([0])
    assert int(tree.candidates.max()) == 1
