from components.analysis.sticky_vocabulary import special_tokens, usable_tokens, vocabulary
from components.encoders.random_sentence import random_sentence_encoder


def test_pieces_placeholders_and_texts_that_are_read_otherwise_are_left_out_and_specials_stay():
    encoder = random_sentence_encoder(["the", "word", "##s", "[unused1]", "Upper", "two words", "\ufffd", "é", "end"])
    names = vocabulary(encoder)
    assert names[5:7] == ["the", "word"]
    usable = [names[place] for place in usable_tokens(encoder)]
    # "Upper" is read in lower case and "é" without its accent, both of which the vocabulary lacks.
    assert usable == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "word", "end"]
    assert special_tokens(encoder).tolist() == [0, 1, 2, 3, 4]
