import polars as pl
import pytest

from components.data import ud

SENTENCE = """# newdoc id = d
# sent_id = {id}
# text = {text}
1-2\tdon't\t_\t_\t_\t_\t_\t_\t_\t_
1\tdo\tdo\tAUX\tVBP\tMood=Ind\t3\taux\t_\t_
2\tn't\tnot\tPART\tRB\t_\t3\tadvmod\t_\t_
2.1\tgone\tgo\tVERB\t_\t_\t_\t_\t_\t_
3\tgo\tgo\tVERB\tVB\t_\t0\troot\t_\t_

"""


def write(directory, name, *ids, text="don't go"):
    path = directory / name
    path.write_text("".join(SENTENCE.format(id=each, text=text) for each in ids), encoding="utf-8")
    return path


def test_syntactic_words_stay_and_multiword_lines_and_empty_nodes_go(tmp_path):
    paths = {name: write(tmp_path, name, f"{name}-1") for name in ("en_x-ud-test.conllu", "en_x-ud-dev.conllu")}
    ud.from_conllu(paths, tmp_path)
    frame = ud.sentences(tmp_path)
    assert frame["split"].to_list() == ["dev", "test"]
    assert frame.row(0, named=True) == {
        "sent_id": "en_x-ud-dev.conllu-1",
        "split": "dev",
        "text": "don't go",
        "form": ["do", "n't", "go"],
        "lemma": ["do", "not", "go"],
        "upos": ["AUX", "PART", "VERB"],
        "feats": ["Mood=Ind", "_", "_"],
        "head": [3, 3, 0],
        "deprel": ["aux", "advmod", "root"],
    }
    assert frame.schema["head"] == pl.List(pl.Int16)


def test_every_language_has_its_table_and_bokmaal_its_own_code(tmp_path):
    names = ["no_bokmaal-ud-dev.conllu", "zh_gsdsimp-ud-test.conllu"]
    ud.from_conllu({name: write(tmp_path, name, "a", "b", text="não 日本") for name in names}, tmp_path)
    assert ud.sentences(tmp_path, "nb").height == 2
    assert ud.sentences(tmp_path, "zh")["text"].to_list() == ["não 日本"] * 2


def test_other_names_and_sentences_without_an_id_are_refused(tmp_path):
    with pytest.raises(ValueError, match="train"):
        ud.from_conllu({"en_x-ud-train.conllu": write(tmp_path, "a", "1")}, tmp_path)
    path = write(tmp_path, "b", "1")
    path.write_text(path.read_text().replace("sent_id", "id"))
    with pytest.raises(ValueError, match="without sent_id"):
        ud.from_conllu({"en_x-ud-dev.conllu": path}, tmp_path)
