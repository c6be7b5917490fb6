"""Tables of metrics: what stands beside what, and the hygiene of every number."""

import math

from flows.declarations.metric import Metric
from flows.ledger.metric_tables import hygiene, metric_tables, single_table
from flows.ledger.results import Summary


def summary(arm, metric, at="", mean=1.0, half=0.1, n=3, samples=100, normaliser="", masked=0.0):
    return Summary(arm, metric, at, mean, mean - half, mean + half, n, samples, "dB", normaliser, masked)


def test_the_numbers_of_one_key_stand_beside_each_other_in_their_order():
    found = [summary("a", "psnr", f"k={k}", mean=k, half=0.25) for k in (8, 16, 1)]
    (table,) = metric_tables({"psnr": Metric("dB", "higher", "Quality.")}, found, ["a"])
    assert (table["along"], table["conditions"]) == ("k", ["1", "8", "16"])
    assert [cell["value"] for cell in table["rows"][0]["cells"]] == ["1.00", "8.00", "16.00"]
    assert (table["says"], table["better"]) == ("Quality.", "higher is better")


def test_of_two_keys_the_one_with_numbers_goes_across_and_the_other_down():
    found = [summary(arm, "loss", f"source={s},vocabulary={v}") for arm in "ab" for s in ("k1", "k2") for v in (2, 512)]
    found.append(summary("a", "loss", "source=k1"))
    (table,) = metric_tables({}, found, ["a", "b"])
    assert (table["along"], table["conditions"]) == ("vocabulary", ["2", "512", ""])
    assert [(row["arm"], row["at"]) for row in table["rows"]] == [
        ("a", "source=k1"),
        ("a", "source=k2"),
        ("b", "source=k1"),
        ("b", "source=k2"),
    ]
    assert [cell is None for cell in table["rows"][0]["cells"]] == [False, False, False]
    assert [cell is None for cell in table["rows"][1]["cells"]] == [False, False, True]


def test_a_table_that_is_wide_or_tall_is_folded_away():
    wide = metric_tables({}, [summary("a", "m", f"k={k}") for k in range(13)], ["a"])
    tall = metric_tables({}, [summary("a", "m", f"s=x{s},k={k}") for s in range(25) for k in range(2)], ["a"])
    small = metric_tables({}, [summary("a", "m", f"k={k}") for k in range(12)], ["a"])
    assert [table["folded"] for table in (*wide, *tall, *small)] == [True, True, False]


def test_metrics_at_one_condition_share_a_table():
    found = [summary("a", "usage"), summary("b", "usage", n=1, half=math.inf), summary("a", "loss", "split=test", n=5)]
    table = single_table({}, found, ["a", "b"])
    assert [(column["metric"], column["at"]) for column in table["columns"]] == [("usage", ""), ("loss", "split=test")]
    first, second = table["rows"]
    assert [cell and cell["seeds"] for cell in first["cells"]] == ["n = 3", ""]
    assert second["seeds"] == "1 seed"
    assert second["cells"] == [{"value": "1", "half": "", "seeds": ""}, None]
    assert metric_tables({}, found, ["a", "b"]) == []
    assert single_table({}, [summary("a", "psnr", f"k={k}") for k in (1, 2)], ["a"]) is None


def test_hygiene_says_items_normaliser_and_what_was_masked():
    assert hygiene([summary("a", "m")]) == "100 test items, nothing masked"
    several = [summary("a", "m", samples=1), summary("b", "m", samples=2000, normaliser="bytes", masked=0.25)]
    assert hygiene(several) == "1 to 2,000 test items, divided by bytes, up to 25.0% masked or padded"
    assert hygiene([summary("a", "m", samples=1)]) == "1 test item, nothing masked"
