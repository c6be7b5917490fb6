"""The import graph of source text whose references are known."""

import polars as pl

from components.data.import_graph import RELATIONS, import_graph


def edges(files: dict[str, str]) -> set[tuple[str, str, str]]:
    graph = import_graph(pl.DataFrame({"module": list(files), "text": list(files.values())}))
    columns = zip(graph.heads.tolist(), graph.relations.tolist(), graph.tails.tolist(), strict=True)
    found = [(graph.modules[head], RELATIONS[relation], graph.modules[tail]) for head, relation, tail in columns]
    assert len(found) == len(set(found))
    return set(found)


def references(files: dict[str, str]) -> set[tuple[str, str, str]]:
    return {edge for edge in edges(files) if edge[1] != "sub-module"}


def test_an_import_leads_to_what_it_names():
    assert references({"a": "import b, os.path as p", "b": ""}) == {("a", "import", "b"), ("a", "import", "os.path")}


def test_a_from_import_leads_to_the_module_where_the_name_is_one_and_else_to_its_source():
    files = {"a.x": "from a import y, thing\nfrom json import loads", "a.y": "", "a.__init__": "thing = 1"}
    assert references(files) == {
        ("a.x", "from-import", "a.y"), ("a.x", "from-import", "a"), ("a.x", "from-import", "json"),
    }  # fmt: skip


def test_dots_start_at_the_package_of_the_module():
    files = {
        "a.__init__": "from . import b\nfrom .b import c",
        "a.b.__init__": "from . import c\nfrom .. import d",
        "a.b.c": "from . import e\nfrom ..d import f",
        "a.d": "",
    }
    assert references(files) == {
        ("a", "from-import", "a.b"),
        ("a", "from-import", "a.b.c"),
        ("a.b", "from-import", "a.b.c"),
        ("a.b", "from-import", "a.d"),
        ("a.b.c", "from-import", "a.b"),
        ("a.b.c", "from-import", "a.d"),
    }


def test_packages_contain_the_modules_directly_inside_even_without_a_file_of_their_own():
    assert edges({"a.b.c": "", "a.b.d": ""}) == {
        ("a", "sub-module", "a.b"), ("a.b", "sub-module", "a.b.c"), ("a.b", "sub-module", "a.b.d"),
    }  # fmt: skip


def test_imports_inside_functions_count_and_repeated_ones_count_once():
    text = "import b\ndef f():\n    import b\n    from c import d\n"
    assert references({"a": text}) == {("a", "import", "b"), ("a", "from-import", "c")}


def test_no_module_refers_to_itself_and_the_order_of_rows_changes_nothing():
    files = {"a": "import a\nimport b", "b": "import a"}
    assert references(files) == {("a", "import", "b"), ("b", "import", "a")}
    turned = dict(reversed(files.items()))
    one = import_graph(pl.DataFrame({"module": list(files), "text": list(files.values())}))
    other = import_graph(pl.DataFrame({"module": list(turned), "text": list(turned.values())}))
    assert one.modules == other.modules
    assert one.heads.tolist() == other.heads.tolist()


def test_text_without_references_is_a_graph_without_edges():
    graph = import_graph(pl.DataFrame({"module": ["a"], "text": ["x = 1"]}))
    assert graph.modules == ("a",)
    assert graph.heads.shape == graph.relations.shape == graph.tails.shape == (0,)
