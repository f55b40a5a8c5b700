"""Sentences and recordings: counts as published beside the files, decoded rows, and errors that name files."""

import os
import wave
import zipfile
import zlib

import numpy as np
import pytest

import mtl_jax as mtl
from mtl_jax.batch import num_rows
from mtl_jax.data.fsdd import RATE, log_mel
from mtl_jax.data.text import affixes_of, vocabulary_of
from mtl_jax.data.ud_ewt import read_conllu

needs_data = pytest.mark.skipif(not os.environ.get("MTL_JAX_DATA"), reason="MTL_JAX_DATA is not set")


def rows(data):
    return [num_rows(s) for s in (data.train, data.val, data.test)]


def decoded(data, split, row, *tasks):
    """The words of a row, and for each tagging task the names of its labels."""
    tasks = [t for t in data.tasks if t.name in tasks]
    there = split.inputs["mask"][row]
    words = [data.vocabulary.words[i] for i in split.inputs["tokens"][row][there]]
    return [" ".join(words), *(" ".join(t.classes[i] for i in split.targets[t.name][row][there]) for t in tasks)]


@needs_data
def test_atis():
    """Source: README of the files (4,478 / 500 / 893; in training 21 intents, 120 tags, 867 words), and lines."""
    data = mtl.data.load("atis")
    assert rows(data) == [4478, 500, 893] and len(data.vocabulary) == 867 + 2
    assert repr(data).endswith("vocabulary=869)") and len(data.take(10).vocabulary) == 869
    assert [(t.kind, t.size) for t in data.tasks] == [("classification", 26), ("tagging", 127)]
    labels, mask = data.train.targets, data.train.inputs["mask"]
    assert len(np.unique(labels["intent"])) == 21 and len(np.unique(labels["slots"][mask])) == 120
    np.testing.assert_array_equal(data.train.masks["slots"], mask)
    assert mask.dtype == bool and mask.sum(1).max() == 46
    assert data.train.inputs["tokens"][mask].min() > 1 and (data.train.inputs["tokens"][~mask] == 0).all()
    assert decoded(data, data.train, 0, "slots") == [
        "i want to fly from baltimore to dallas round trip",
        "O O O O O B-fromloc.city_name O B-toloc.city_name B-round_trip I-round_trip",
    ]
    assert data.tasks[0].classes[labels["intent"][1]] == "atis_airfare"
    assert mtl.tasks.metric_functions(data.tasks[1])[0].name == "span_f1"
    unknown = data.test.inputs["tokens"][data.test.inputs["mask"]] == 1
    assert 0 < unknown.sum() < 100
    short = mtl.data.load("atis(max_length=5, min_count=2, tasks=('slots',))")
    assert short.train.inputs["tokens"].shape == short.train.targets["slots"].shape == (4478, 5)
    assert short.spec == "atis(tasks=('slots',), max_length=5, min_count=2)" and len(short.vocabulary) == 612


@needs_data
def test_ud_ewt():
    """Source: README of the files (12,544 / 2,001 / 2,077 sentences; 204,577 / 25,147 / 25,094 words); their lines."""
    data = mtl.data.load("ud_ewt", tasks=("upos", "deprel", "number", "tense"), max_length=160)
    assert rows(data) == [12544, 2001, 2077]
    assert [int(s.inputs["mask"].sum()) for s in (data.train, data.val, data.test)] == [204577, 25147, 25094]
    assert [t.size for t in data.tasks] == [17, 51, 4, 3] and len(data.vocabulary) == 8867
    words, upos, deprel, number, tense = decoded(data, data.val, 0, "upos", "deprel", "number", "tense")
    assert words == "from the <unknown> comes this story :" and upos == "ADP DET PROPN VERB DET NOUN PUNCT"
    assert deprel == "case det obl root det nsubj punct" and number == "none none Sing Sing Sing Sing none"
    assert tense == "none none none Pres none none none"
    assert mtl.tasks.metric_functions(data.tasks[0])[0].name == "accuracy"
    few = mtl.data.load("ud_ewt(num_train=100)")
    assert rows(few) == [100, 2001, 2077] and few.train.inputs["tokens"].shape == (100, 64)
    assert len(few.vocabulary) == 8867 and few.tasks[1].size == 51  # of the whole training split, whatever is drawn
    data = mtl.data.load("ud_ewt(num_train=100, affixes=64)")
    assert data.spec == "ud_ewt(num_train=100, affixes=64)"
    there, affixes = data.test.inputs["mask"], data.test.inputs["affixes"]
    assert affixes.shape == (2077, 64, 9) and not affixes[~there].any()
    assert affixes[there].min() == 1 and affixes.max() == 63


@needs_data
def test_fsdd():
    """Source: README of the files: 6 people, 10 digits, 50 takes, and takes 0 to 4 test."""
    data = mtl.data.load("fsdd")
    assert rows(data) == [2400, 300, 300]
    assert data.tasks[1].classes == ("george", "jackson", "lucas", "nicolas", "theo", "yweweler")
    for split, takes in {"train": 40, "val": 5, "test": 5}.items():
        part = getattr(data, split)
        both = np.stack([part.targets["digit"], part.targets["speaker"]])
        assert (np.unique(both, axis=1, return_counts=True)[1] == takes).all() and len(np.unique(both, axis=1).T) == 60
        values, mask = part.inputs["values"], part.inputs["mask"]
        assert values.shape[1:] == (64, 32) and values.dtype == np.float32 and mask.dtype == bool
        assert mask[:, 0].all() and (mask[:, 1:] <= mask[:, :-1]).all() and not values[~mask].any()
        assert abs(values[mask].mean()) < 0.1 and 0.9 < values[mask].std() < 1.1
    assert 0.98 < 1 - data.train.inputs["mask"].all(1).mean() < 1
    assert mtl.data.load("fsdd(tasks=('digit',), max_frames=20, bands=8)").test.inputs["values"].shape == (300, 20, 8)


def test_log_mel_of_a_tone():
    """Source: the mel formula; a pure tone is loudest in the band whose peak is nearest to it, in every frame."""
    times = np.arange(4000) / RATE
    for hertz in (300, 1000, 3000):
        frames = log_mel(np.sin(2 * np.pi * hertz * times), 32)
        mel = 2595 * np.log10(1 + hertz / 700) / (2595 * np.log10(1 + 4000 / 700))
        assert frames.shape == ((4000 - 256) // 128 + 1, 32) and (abs(frames.argmax(1) - (33 * mel - 1)) <= 1).all()
    quiet = log_mel(np.zeros(10), 8)  # shorter than a frame, and silent
    np.testing.assert_allclose(quiet, np.full((1, 8), (np.log(1e-6) + 4.75) / 4), rtol=1e-6)


def test_vocabulary():
    words = vocabulary_of([["The", "cat"], ["the", "dog", "dog"]], min_count=2, lowercase=True)
    assert words.words == ("<padding>", "<unknown>", "dog", "the") and len(words) == 4
    encoded = words.encode([["THE", "<padding>", "cat", "dog"], ["dog"]], 3)
    assert encoded["tokens"].tolist() == [[3, 1, 1], [2, 0, 0]]  # a word that reads like padding is no padding
    assert encoded["mask"].tolist() == [[True] * 3, [True, False, False]]


def test_affixes_tell_of_unknown_words():
    """Against their definition, written out: 4 beginnings, 4 ends and the shape of a word, hashed by zlib's crc32."""
    pieces = ["<R", "<Ru", "<Run", "<Runn", "s>", "rs>", "ers>", "ners>", "=Xx"]
    assert affixes_of("Runners", 100) == tuple(1 + zlib.crc32(p.encode()) % 99 for p in pieces)
    assert affixes_of("TCP/IP-42", 100)[-1] == 1 + zlib.crc32(b"=X/X-d") % 99
    assert affixes_of("I", 100)[:4] == (affixes_of("I", 100)[0],) * 4
    words = vocabulary_of([["the", "the"]], min_count=2, lowercase=True, affixes=100)
    encoded = words.encode([["The", "Runners", "ran"], ["the"]], 2)
    assert encoded["tokens"].tolist() == [[2, 1], [2, 0]] and encoded["affixes"].dtype == np.int32
    assert tuple(encoded["affixes"][0, 1]) == affixes_of("Runners", 100) and not encoded["affixes"][1, 1].any()
    assert (encoded["affixes"][0, 0] != encoded["affixes"][1, 0]).any()  # case is kept


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_errors(tmp_path, monkeypatch):
    monkeypatch.delenv("MTL_JAX_DATA", raising=False)
    for name, file in {
        "atis": "atis/train/seq.in",
        "ud_ewt": "ud_english_ewt/en_ewt-ud-train.conllu.gz",
        "fsdd": "fsdd/recordings.zip",
        "trec": "trec/train_5500.label",
    }.items():
        with pytest.raises(FileNotFoundError, match=f"needs DIR/{file}; give data_dir .*It comes from .*github.com"):
            mtl.data.load(name)
        with pytest.raises(FileNotFoundError, match=f"there is no .*{file}; .*It comes from .*github.com"):
            mtl.data.load(name, data_dir=tmp_path)
        with pytest.raises(ValueError, match=f"unknown task of data set '{name}' 'gender'"):
            mtl.data.load(name, tasks=("gender",), data_dir=tmp_path)
    with pytest.raises(ValueError, match="data set 'ud_ewt': affixes=1 must be an integer of at least 2"):
        mtl.data.load("ud_ewt(affixes=1)")
    with pytest.raises(ValueError, match="data set 'atis': max_length=0 must be an integer of at least 1"):
        mtl.data.load("atis(max_length=0)")
    for folder in ("train", "valid", "test"):
        for file, text in {"seq.in": "to boston\nfly\n", "seq.out": "O B-city\nO\n", "label": "a\nb\n"}.items():
            write(tmp_path / "atis" / folder / file, text)
    assert rows(mtl.data.load("atis", data_dir=tmp_path)) == [2, 2, 2]
    write(tmp_path / "atis/valid/label", "a\n")
    with pytest.raises(ValueError, match="valid: seq.in, seq.out and label have 2, 2 and 1 lines"):
        mtl.data.load("atis", data_dir=tmp_path)
    write(tmp_path / "atis/train/seq.out", "O\nO\n")
    with pytest.raises(ValueError, match="seq.out, line 1: 1 tags for 2 words"):
        mtl.data.load("atis", data_dir=tmp_path)
    write(tmp_path / "short.conllu", "# text = a\n1\ta\ta\n")
    with pytest.raises(ValueError, match="short.conllu, line 2: 3 fields; CoNLL-U has 10"):
        read_conllu(tmp_path / "short.conllu")
    write(tmp_path / "fsdd/recordings.zip", "no zip")
    with pytest.raises(ValueError, match="recordings.zip is truncated or damaged"):
        mtl.data.load("fsdd", data_dir=tmp_path)
    with wave.open(str(tmp_path / "stereo.wav"), "wb") as audio:
        audio.setparams((2, 2, 8000, 0, "NONE", None))
        audio.writeframes(bytes(400))
    with zipfile.ZipFile(tmp_path / "fsdd/recordings.zip", "w") as archive:
        archive.write(tmp_path / "stereo.wav", "recordings/0_george_0.wav")
    with pytest.raises(
        ValueError, match="0_george_0.wav has 2 channels of 16 bit at 8000 Hz, not one of 16 bit at 8000"
    ):
        mtl.data.load("fsdd", data_dir=tmp_path)
