import itertools

import numpy as np
import pytest
import torch

from components.analysis.grammar_inside import (
    GrammarError,
    Rules,
    TreeShapes,
    best_spans,
    expected_counts,
    inside,
)

N, P, V = 2, 2, 3


def grammar(batch=1, nonterminals=N, preterminals=P, seed=0):
    """Random probabilities of a grammar: roots, binary rules, and emissions (batch, P, V)."""
    generator = torch.Generator().manual_seed(seed)
    symbols = nonterminals + preterminals

    def draw(*shape):
        return (2 * torch.randn(*shape, generator=generator, dtype=torch.float64)).log_softmax(-1)

    binary = draw(batch, nonterminals, symbols * symbols).view(batch, nonterminals, symbols, symbols)
    return draw(batch, nonterminals), binary, draw(batch, preterminals, V)


def rules_of(parts, sentences):
    root, binary, emission = parts
    places = sentences[:, None, :].expand(-1, emission.shape[1], -1)
    return Rules(root, binary, emission.gather(2, places).transpose(1, 2))


def trees(first, last):
    """Every binary tree over the tokens first .. last, as nested spans (first, last, left, right)."""
    if first == last:
        yield (first, last, None, None)
        return
    for split in range(first, last):
        for left, right in itertools.product(trees(first, split), trees(split + 1, last)):
            yield (first, last, left, right)


def labelled(tree, nonterminals, preterminals):
    """Every labelling of a tree: lists of (span, symbol, children's symbols)."""
    first, last, left, right = tree
    if left is None:
        for symbol in range(nonterminals, nonterminals + preterminals):
            yield symbol, [((first, last), symbol, None)]
        return
    parts = itertools.product(labelled(left, nonterminals, preterminals), labelled(right, nonterminals, preterminals))
    for (a, above), (b, below) in parts:
        for symbol in range(nonterminals):
            yield symbol, [((first, last), symbol, (a, b)), *above, *below]


def derivations(rules, row):
    """Probability, spans and binary rules of every derivation of one sentence, by enumeration."""
    root, binary, leaves = (part[row].exp().numpy() for part in (rules.root, rules.binary, rules.leaves))
    nonterminals, preterminals = len(root), leaves.shape[1]
    for tree in trees(0, len(leaves) - 1):
        for top, nodes in labelled(tree, nonterminals, preterminals):
            probability = root[top]
            for (first, _), symbol, children in nodes:
                if children is None:
                    probability *= leaves[first, symbol - nonterminals]
                else:
                    probability *= binary[symbol][children]
            spans = [span for span, _, children in nodes if children is not None]
            yield probability, spans, [(symbol, *children) for _, symbol, children in nodes if children]


@pytest.mark.parametrize("length", [2, 3, 4])
def test_the_inside_algorithm_is_the_sum_over_all_trees_and_labels(length):
    sentences = torch.tensor(list(itertools.product(range(V), repeat=length))[::5])
    rules = rules_of(grammar(len(sentences)), sentences)
    expected = [sum(p for p, _, _ in derivations(rules, row)) for row in range(len(sentences))]
    assert inside(rules).exp().tolist() == pytest.approx(expected, rel=1e-6)


def test_the_best_tree_is_that_of_the_most_probable_derivation():
    sentences = torch.randint(V, (12, 4), generator=torch.Generator().manual_seed(1))
    rules = rules_of(grammar(len(sentences), seed=2), sentences)
    found = best_spans(rules)
    for row in range(len(sentences)):
        _, spans, _ = max(derivations(rules, row), key=lambda each: each[0])
        marked = [(start, start + width) for start, width in found[row].nonzero().tolist()]
        assert sorted(marked) == sorted(spans)


def test_expected_counts_are_the_posterior_means_over_derivations():
    rules = rules_of(grammar(seed=3), torch.tensor([[0, 2, 1, 1]]))
    expected, total = np.zeros((N, N + P, N + P)), 0.0
    for probability, _, used in derivations(rules, 0):
        total += probability
        for rule in used:
            expected[rule] += probability
    assert expected_counts(rules)[0].numpy() == pytest.approx(expected / total)
    assert expected_counts(rules).sum().item() == pytest.approx(3)


def test_strings_of_one_length_share_the_mass_of_that_length_and_lengths_add_up():
    parts = grammar(seed=5)
    # A grammar that rarely branches into nonterminals ends soon: nearly all mass lies in short strings.
    binary = parts[1].clone()
    binary[..., N:, N:] += 3
    parts = (parts[0], binary.flatten(2).log_softmax(-1).view_as(binary), parts[2])
    strings = torch.tensor(list(itertools.product(range(V), repeat=3)))
    repeated = tuple(part.expand(len(strings), *part.shape[1:]) for part in parts)
    of_strings = inside(rules_of(repeated, strings)).exp().sum()
    # Leaves of probability 1 stand for any token.
    masses = [
        inside(Rules(parts[0], parts[1], torch.zeros(1, length, P, dtype=torch.float64))).exp().item()
        for length in range(2, 40)
    ]
    assert of_strings.item() == pytest.approx(masses[1], rel=1e-9)
    assert sum(masses) == pytest.approx(1, abs=1e-6)


def test_long_sentences_of_improbable_tokens_do_not_underflow():
    root, binary, _ = (part.float() for part in grammar(nonterminals=4, preterminals=5))
    leaves = torch.full((1, 40, 5), -60.0)
    value = inside(Rules(root, binary, leaves))
    assert value.isfinite().all()
    exact = inside(Rules(root.double(), binary.double(), torch.zeros(1, 40, 5).double())) - 60 * 40
    assert value.item() == pytest.approx(exact.item(), rel=1e-6)


def test_a_sentence_does_not_see_its_neighbours_in_the_batch():
    sentences = torch.tensor([[0, 1, 2, 0, 1], [2, 2, 1, 0, 0]])
    parts = grammar(2, seed=7)
    together = inside(rules_of(parts, sentences))
    apart = [inside(rules_of(tuple(part[row : row + 1] for part in parts), sentences[row : row + 1])) for row in (0, 1)]
    assert together.tolist() == pytest.approx(torch.cat(apart).tolist())


def test_gradients_are_those_of_finite_differences():
    root, binary, emission = grammar(seed=8)
    sentence = torch.tensor([[0, 1, 2, 1]])

    def value(root, binary, emission):
        return inside(rules_of((root, binary, emission), sentence))

    inputs = tuple(part.requires_grad_() for part in (root, binary, emission))
    assert torch.autograd.gradcheck(value, inputs, fast_mode=True)


def test_shapes_of_chains_and_of_a_balanced_tree():
    def marked(spans, n):
        found = torch.zeros(1, n, n, dtype=torch.bool)
        for start, end in spans:
            found[0, start, end - start] = True
        return found

    right = TreeShapes.of(marked([(0, 3), (1, 3), (2, 3)], 4))
    left = TreeShapes.of(marked([(0, 3), (0, 2), (0, 1)], 4))
    balanced = TreeShapes.of(marked([(0, 3), (0, 1), (2, 3)], 4))
    assert [float(value) for value in (right.right_branching, right.left_branching)] == [1, 0]
    assert [float(value) for value in (left.right_branching, left.left_branching)] == [0, 1]
    assert [float(value) for value in (balanced.right_branching, balanced.left_branching)] == [0, 0]
    assert float(right.depth) == float(left.depth) == (1 + 2 + 3 + 3) / 4
    assert float(balanced.depth) == 2


def test_rules_that_do_not_fit_are_refused():
    root, binary, _ = grammar()
    with pytest.raises(GrammarError, match="expected"):
        Rules(root, binary, torch.zeros(1, 3, P + 1))
    with pytest.raises(GrammarError, match="at least 2"):
        Rules(root, binary, torch.zeros(1, 1, P))
