import pytest

from components.data import sts


def test_scored_pairs_of_every_subset_become_rows_and_unscored_ones_go(tmp_path):
    paths = {}
    for year, subset in sts.LICENCES:
        path = tmp_path / f"{year}-{subset}.tsv"
        path.write_text(f'3.25\t {subset} "one \tandre \tcredit\n\tunscored\tpair\n\n', encoding="utf-8")
        paths[f"{year}/{subset}.test.tsv"] = path
    sts.from_tsv(paths, tmp_path)
    frame = sts.pairs(tmp_path)
    assert frame.height == len(sts.LICENCES)
    assert frame.row(0, named=True) == {
        "score": 3.25,
        "sentence1": 'images "one',
        "sentence2": "andre",
        "year": 2014,
        "subset": "images",
        "licence": "CC BY-SA (PASCAL VOC-2008 captions)",
    }
    assert list(zip(frame["year"], frame["subset"], strict=True)) == list(sts.LICENCES)


def test_a_line_with_too_few_fields_is_refused(tmp_path):
    path = tmp_path / "a.tsv"
    path.write_text("1.0\tonly one\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"2014/images\.test\.tsv: expected score"):
        sts.from_tsv({f"{year}/{subset}.test.tsv": path for year, subset in sts.LICENCES}, tmp_path)
