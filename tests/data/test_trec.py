"""Questions: counts as published, one question in one split, tokens by a named tokenizer, and what errors name."""

import os

import numpy as np
import pytest

import mtl_jax as mtl
from mtl_jax.batch import num_rows
from mtl_jax.data.fingerprint import differences, fingerprint

needs_data = pytest.mark.skipif(not os.environ.get("MTL_JAX_DATA"), reason="MTL_JAX_DATA is not set")
PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "who", "what", "is", "it", "##s", "?", "far"]
QUESTIONS = "HUM:ind Who is it ?\nDESC:def What is its ?\nHUM:ind Who is it ?\nNUM:dist how far is far ?\n"
TEST = "HUM:ind Who ?\nNUM:dist far ?\n"


def write(root, train=QUESTIONS, test=TEST):
    (root / "trec").mkdir(exist_ok=True)
    (root / "trec/train_5500.label").write_text(train, encoding="latin-1")
    (root / "trec/TREC_10.label").write_text(test, encoding="latin-1")
    return root


def words_of(data, split, row):
    there = split.inputs["mask"][row]
    return " ".join(data.vocabulary.words[i] for i in split.inputs["tokens"][row][there])


@needs_data
def test_as_published():
    """Source: README of the files (5,452 questions of 6 and 50 classes; 500 of 42), `sort | uniq -d`, and lines."""
    data = mtl.data.load("trec", min_count=1)
    assert [num_rows(s) for s in (data.train, data.val, data.test)] == [4909, 543, 500]
    assert [(t.kind, t.size) for t in data.tasks] == [("classification", 6), ("classification", 50)]
    classes = {t.name: t.classes for t in data.tasks}
    for split, count in ((data.train, 50), (data.test, 42)):
        assert len(np.unique(split.targets["fine"])) == count
        for row in range(0, num_rows(split), 100):
            coarse, fine = (classes[t][split.targets[t][row]] for t in ("coarse", "fine"))
            assert fine.startswith(f"{coarse}:")
    assert words_of(data, data.test, 0) == "how far is it from denver to <unknown> ?"
    assert classes["fine"][data.test.targets["fine"][0]] == "NUM:dist"
    texts = {k: [words_of(data, getattr(data, k), i) for i in range(num_rows(getattr(data, k)))]
             for k in ("train", "val")}  # fmt: skip
    every = [*texts["train"], *texts["val"]]
    assert len(every) - len(set(every)) >= 71 and not set(texts["train"]) & set(texts["val"])
    assert sum("as a sister city with los angeles" in t for t in every) == 1
    train, val = (np.bincount(s.targets["fine"], minlength=50) for s in (data.train, data.val))
    assert (abs(val - 0.1 * (train + val)) < 6).all()  # but for what copies of a question weigh
    assert sorted(np.concatenate(list(data.rows.values()))) == list(range(5452))
    other = mtl.data.load("trec(seed=1, val=0.2, tasks='fine')")
    assert other.spec == "trec(tasks=('fine',), val=0.2, seed=1)" and len(other.vocabulary) == 3477
    assert 1050 < num_rows(other.val) < 1130 and not np.array_equal(other.rows["val"][:9], data.rows["val"][:9])


def test_tokens_are_those_of_the_tokenizer_that_is_named(tmp_path):
    """Ids by hand; another tokenizer is told though it makes the same ids of these questions."""
    pytest.importorskip("tokenizers")
    write(tmp_path)
    for name, pieces in {"one": PIECES, "two": [*PIECES, "more"]}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "vocab.txt").write_text("\n".join(pieces) + "\n")
    data = mtl.data.load("trec", tokenizer=tmp_path / "one", length=8, val=0.0, data_dir=tmp_path)
    rows = [[2, 4, 6, 7, 9, 3, 0, 0], [2, 5, 6, 7, 8, 9, 3, 0], [2, 4, 6, 7, 9, 3, 0, 0], [2, 1, 10, 6, 10, 9, 3, 0]]
    assert data.train.inputs["tokens"].tolist() == rows and data.val is None
    assert data.train.inputs["mask"].tolist() == [[i != 0 for i in row] for row in rows]
    assert len(data.vocabulary) == 11 and repr(data.vocabulary).endswith("one/vocab.txt)")
    assert data.vocabulary.encode(["who ?"], 5)["tokens"].tolist() == [[2, 4, 9, 3, 0]]
    assert data.spec == f"trec(tokenizer={str(tmp_path / 'one')!r}, length=8, val=0.0)"
    again = mtl.data.load("trec", tokenizer=tmp_path / "one/vocab.txt", length=8, val=0.0, data_dir=tmp_path)
    assert fingerprint(again) == fingerprint(data)
    other = mtl.data.load("trec", tokenizer=tmp_path / "two", length=8, val=0.0, data_dir=tmp_path)
    assert other.train.inputs["tokens"].tolist() == rows
    assert differences(fingerprint(data), fingerprint(other)) == ["data: tokens of the tokenizer 11 ids -> 12 ids"]
    (tmp_path / "two/vocab.txt").write_text("\n".join([*PIECES[:-1], "Far"]) + "\n")
    (tmp_path / "two/tokenizer_config.json").write_text('{"do_lower_case": false}')
    cased = mtl.data.load("trec", tokenizer=tmp_path / "two", length=8, val=0.0, data_dir=tmp_path)
    assert "data: tokens of the tokenizer differ" in differences(fingerprint(data), fingerprint(cased))
    with pytest.warns(UserWarning, match="2 of 4 texts are longer than 6 tokens, and are cut"):
        mtl.data.load("trec", tokenizer=tmp_path / "one", length=6, val=0.0, data_dir=tmp_path)


def test_classes_that_a_split_lacks(tmp_path):
    """A class of the test that training lacks counts as an error, which is said; one of training alone is no news."""
    write(tmp_path, test="HUM:gr Who ?\n")
    with pytest.warns(UserWarning, match=r"training has no question of class HUM:gr of task 'fine', and test has"):
        data = mtl.data.load("trec", min_count=1, val=0.0, data_dir=tmp_path)
    assert data.tasks[1].classes == ("DESC:def", "HUM:gr", "HUM:ind", "NUM:dist")
    assert data.train.targets["fine"].tolist() == [2, 0, 2, 3] and data.test.targets["fine"].tolist() == [1]


def test_what_errors_name(tmp_path):
    write(tmp_path, train=QUESTIONS + "\nNUM how many ?\n")
    with pytest.raises(ValueError, match="train_5500.label, line 6: 'NUM how many .' is not of the form COARSE:fine"):
        mtl.data.load("trec", data_dir=tmp_path)
    write(tmp_path, test="\n")
    with pytest.raises(ValueError, match="TREC_10.label holds no question"):
        mtl.data.load("trec", data_dir=tmp_path)
    write(tmp_path)
    with pytest.raises(ValueError, match=r"val=1.5 must be a share of the rows"):
        mtl.data.load("trec(val=1.5)", data_dir=tmp_path)
    with pytest.raises(ValueError, match="data set 'trec': length=0 must be an integer"):
        mtl.data.load("trec(length=0)", data_dir=tmp_path)
    with pytest.raises(ValueError, match="data set 'trec': affixes is about words, and a tokenizer makes its own"):
        mtl.data.load("trec(affixes=64, tokenizer='here')", data_dir=tmp_path)
    with pytest.warns(UserWarning, match="4 of 6 questions are longer than 3 words, and are cut"):
        mtl.data.load("trec(length=3, val=0.0)", data_dir=tmp_path)
    pytest.importorskip("tokenizers")
    with pytest.raises(FileNotFoundError, match=r"there is no .*gone; name a folder, tokenizer.json or vocab.txt"):
        mtl.data.load("trec", tokenizer=tmp_path / "gone", data_dir=tmp_path)
    with pytest.raises(FileNotFoundError, match="trec holds neither tokenizer.json nor vocab.txt"):
        mtl.data.load("trec", tokenizer=tmp_path / "trec", data_dir=tmp_path)
    (tmp_path / "tokenizer.json").write_text('{"half":')
    with pytest.raises(ValueError, match="tokenizer.json is damaged, or no tokenizer"):
        mtl.data.load("trec", tokenizer=tmp_path, data_dir=tmp_path)
