"""Links of the import graph: what is held out, what the tokens may see, and ranks against counting."""

from pathlib import Path

import polars as pl
import pytest
import torch

from components.bases import load_model
from components.data.import_graph import RELATIONS, ImportGraph
from components.errors import TesseraError
from components.tokenizers.graph.anchor_relation import AnchorRelationEncoder
from components.training.determinism import reset
from flows.declarations.resolve import resolve
from flows.declarations.workspace import Workspace
from flows.studies.context import StageContext
from flows.studies.image_tokenizer import standin
from flows.studies.image_tokenizer.discrete_tokenization_survey import graphs

ROOT = Path(__file__).parents[5]
PAPER = Workspace.load(ROOT).paper("discrete-tokenization-survey")
VARIANT = PAPER.canonical
R = len(RELATIONS)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> dict[str, Path]:
    directory = tmp_path_factory.mktemp("python-source")
    standin.make("python-source", directory)
    return {"data/python-source": directory}


def context(folder: Path, inputs: dict[str, Path], arm: str, kind: str = "train", **changes) -> StageContext:
    params = resolve(PAPER, VARIANT, arm, "smoke", kind).model_copy(update=changes)
    for name in ("run", "log", "checkpoint"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    return StageContext(
        kind, PAPER.slug, VARIANT, arm, 0, "smoke", params, inputs,
        folder / "run", folder / "log", folder / "checkpoint",
    )  # fmt: skip


def random_graph(nodes: int, links: int) -> ImportGraph:
    generator = torch.Generator().manual_seed(0)
    rows = {
        (int(head), int(relation), int(tail))
        for head, relation, tail in torch.stack(
            [torch.randint(size, (links,), generator=generator) for size in (nodes, R, nodes)], 1
        )
    }
    heads, relations, tails = torch.tensor(sorted(rows)).unbind(1)
    return ImportGraph(tuple(f"m{node}" for node in range(nodes)), heads, relations, tails)


@pytest.mark.parametrize("share", [0.1, 0.4])
def test_the_share_is_held_out_and_every_node_keeps_a_link(share):
    graph = random_graph(60, 600)
    held_out = graphs.hold_out(graph, share, torch.Generator().manual_seed(1))
    assert int(held_out.sum()) == round(share * len(graph.heads))
    for ends in (graph.heads, graph.tails):
        before, after = set(ends.tolist()), set(graph.heads[~held_out].tolist()) | set(graph.tails[~held_out].tolist())
        assert before <= after
    again = graphs.hold_out(graph, share, torch.Generator().manual_seed(1))
    assert torch.equal(held_out, again)
    assert not torch.equal(held_out, graphs.hold_out(graph, share, torch.Generator().manual_seed(2)))


def test_where_no_link_can_be_spared_none_is_held_out():
    path = ImportGraph(("a", "b", "c"), torch.tensor([0, 1]), torch.tensor([0, 0]), torch.tensor([1, 2]))
    assert not graphs.hold_out(path, 0.5, torch.Generator().manual_seed(0)).any()


def test_both_arms_hold_out_the_same_links_and_share_all_but_the_embedding():
    one, other = (
        resolve(PAPER, VARIANT, arm, "small", "train").model_dump(exclude={"node_embedding"})
        for arm in ("graph_anchors", "graph_table")
    )
    assert one == other


def test_tokens_do_not_see_held_out_links(inputs, tmp_path):
    stage = context(tmp_path, inputs, "graph_anchors")
    graph = graphs.read_graph(stage)
    held_out = graphs.hold_out(graph, 0.2, torch.Generator().manual_seed(0))
    moved = graph.tails.clone()
    moved[held_out] = (moved[held_out] + 1) % len(graph.modules)
    other = ImportGraph(graph.modules, graph.heads, graph.relations, moved)
    for one, two in zip(
        graphs.tokens_of(stage, graph, ~held_out), graphs.tokens_of(stage, other, ~held_out), strict=True
    ):
        assert torch.equal(one, two)


@pytest.mark.parametrize("arm", ["graph_anchors", "graph_table"])
def test_ranks_are_counted_over_nodes_that_are_no_other_right_answer(arm, inputs, tmp_path):
    stage = context(tmp_path / "train", inputs, arm)
    reset(0)
    graphs.train(stage)
    evaluation = context(tmp_path / "evaluate", {**inputs, "train": stage.output}, arm, "evaluate")
    graphs.evaluate(evaluation)
    table = pl.read_parquet(evaluation.output / "metrics.parquet")
    model = load_model(stage.output)
    graph = graphs.read_graph(stage)
    held_out = graphs.hold_out(graph, stage.params.held_out_share, graphs._generator(stage, graphs._HELD_OUT))
    triples = list(zip(graph.heads.tolist(), graph.relations.tolist(), graph.tails.tolist(), strict=True))
    answers = {(head, relation, tail) for head, relation, tail in triples}
    answers |= {(tail, R + relation, head) for head, relation, tail in triples}
    asked = [triple for triple, held in zip(triples, held_out.tolist(), strict=True) if held]
    asked += [(tail, R + relation, head) for head, relation, tail in asked]
    expected = []
    with torch.no_grad():
        for source, relation, target in asked:
            scores = model(torch.tensor([source]), torch.tensor([relation]))[0].tolist()
            wrong = [
                score for node, score in enumerate(scores) if node != target and (source, relation, node) not in answers
            ]
            better = sum(score > scores[target] + 1e-6 for score in wrong)
            equal = sum(abs(score - scores[target]) <= 1e-6 for score in wrong)
            expected.append(1 / (1 + better + equal / 2))
    found = table.filter(pl.col("metric") == "mrr", pl.col("at") == "")["value"].to_list()
    assert found == pytest.approx(expected)
    sizes = {row["metric"]: row["value"] for row in table.filter(pl.col("sample").is_null()).to_dicts()}
    assert sizes["node_parameters"] == sum(parameter.numel() for parameter in model.encoder.parameters())
    assert sizes["vocabulary"] == model.encoder.vocabulary
    if arm == "graph_table":
        assert sizes["vocabulary"] == sizes["nodes"]
        assert sizes["told_apart"] == 1


def test_a_saved_predictor_brings_its_tokens_with_it(inputs, tmp_path):
    stage = context(tmp_path, inputs, "graph_anchors")
    reset(0)
    graphs.train(stage)
    encoder = load_model(stage.output).encoder
    assert isinstance(encoder, AnchorRelationEncoder)
    assert int((encoder.anchors_of < stage.params.anchors).sum()) > 0


def test_missing_data_is_named(tmp_path):
    with pytest.raises(TesseraError, match="reads data set 'python-source'"):
        graphs.read_graph(context(tmp_path, {}, "graph_table"))
