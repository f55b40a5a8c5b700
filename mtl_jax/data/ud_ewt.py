"""Universal Dependencies, English Web Treebank: grammar of 16,622 sentences, word by word (Silveira et al., LREC 2014).

Files are CoNLL-U, as released (https://universaldependencies.org/format.html).
"""

import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from mtl_jax import parts
from mtl_jax.batch import Batch
from mtl_jax.data.arrays import finish
from mtl_jax.data.dataset import Dataset
from mtl_jax.data.sources import chosen_tasks, find
from mtl_jax.data.tables import read_text
from mtl_jax.data.text import check_counts, padded, vocabulary_of
from mtl_jax.tasks import Task

TASKS = ("upos", "deprel", "number", "tense")
FILES = {"train": "train", "val": "dev", "test": "test"}
FEATURES = {"number": "Number", "tense": "Tense"}
SOURCE = "github.com/UniversalDependencies/UD_English-EWT, packed with gzip"


class Sentence(NamedTuple):
    """A sentence's words and {task: labels}, one for each."""

    words: list[str]
    labels: dict[str, list[str]]


def ud_ewt(
    tasks: Sequence[str] = ("upos", "deprel"),
    num_train: int | None = None,
    max_length: int = 64,
    min_count: int = 2,
    lowercase: bool = True,
    affixes: int | None = None,
    data_dir: str | pathlib.Path | None = None,
) -> Dataset:
    """Tagging tasks on 12,544 / 2,001 / 2,077 sentences (204,577 / 25,147 / 25,094 words in version 2.16).

    Inputs are {"tokens": int32 [N, max_length], "mask": bool}. The vocabulary is that of all training sentences: 8,867
    ids by default, with those of padding and of unknown words (9.7% of the test split's words).

    Args:
      tasks: among upos (17 parts of speech), deprel (51 relations to the word that governs), and number and tense (the
        features' values, "none" where a word has none).
      num_train: how many training sentences, drawn by a fixed permutation; None for all.
      max_length: longer sentences are cut off: by default 74, 2 and 5 of them, which loses 0.5%, 0.05% and 0.2% of the
        words.
      min_count: words that training has less often are unknown.
      lowercase: whether words are looked up in lower case.
      affixes: number of buckets, for inputs that also have {"affixes": int32 [N, max_length, 9]}: what beginning, end
        and shape of a word tell of its grammar, an unknown one's too (`text.affixes_of`); None for none.
      data_dir: where ``ud_english_ewt/en_ewt-ud-train.conllu.gz`` and its kin lie; by default the environment's
        MTL_JAX_DATA.

    Raises:
      FileNotFoundError, ValueError: naming file and line.
    """
    tasks = chosen_tasks("ud_ewt", tasks, TASKS)
    check_counts("ud_ewt", num_train=num_train, max_length=max_length, min_count=min_count)
    check_counts("ud_ewt", least=2, affixes=affixes)
    found = {
        split: read_conllu(find(f"ud_english_ewt/en_ewt-ud-{file}.conllu.gz", data_dir, "ud_ewt", SOURCE))
        for split, file in FILES.items()
    }
    vocabulary = vocabulary_of((s.words for s in found["train"]), min_count, lowercase, affixes)
    classes = {t: tuple(sorted({v for split in found.values() for s in split for v in s.labels[t]})) for t in tasks}
    if num_train is not None:
        if num_train > len(found["train"]):
            raise ValueError(f"data set 'ud_ewt': num_train={num_train} exceeds the {len(found['train'])} sentences")
        rows = np.sort(np.random.default_rng(0).permutation(len(found["train"]))[:num_train])
        found["train"] = [found["train"][i] for i in rows]
    raw = {}
    for split, sentences in found.items():
        targets, masks = {}, {}
        for t in tasks:
            number = {c: i for i, c in enumerate(classes[t])}
            targets[t], masks[t] = padded([[number[v] for v in s.labels[t]] for s in sentences], max_length)
        raw[split] = Batch(vocabulary.encode((s.words for s in sentences), max_length), targets, masks)
    made = {t: Task(t, "tagging", classes=classes[t]) for t in tasks}
    given = {
        "tasks": tasks, "num_train": num_train, "max_length": max_length, "min_count": min_count,
        "lowercase": lowercase, "affixes": affixes,
    }  # fmt: skip
    defaults = {
        "tasks": ("upos", "deprel"), "num_train": None, "max_length": 64, "min_count": 2, "lowercase": True,
        "affixes": None,
    }  # fmt: skip
    spec = parts.call("ud_ewt", {k: v for k, v in given.items() if v != defaults[k]})
    return finish(raw, tasks, made, "ud_ewt", spec=spec, vocabulary=vocabulary)


def read_conllu(path: pathlib.Path) -> list[Sentence]:
    """The sentences of a file; ranges of words written as one (1-2) and words that are not there (8.1) are left out.

    Raises:
      ValueError: naming file and line, for a line that has not ten fields.
    """
    sentences, words, labels = [], [], {t: [] for t in TASKS}
    for i, line in enumerate([*read_text(path).splitlines(), ""]):
        if not line:
            if words:
                sentences.append(Sentence(words, labels))
            words, labels = [], {t: [] for t in TASKS}
            continue
        if line.startswith("#"):
            continue
        fields = line.split("\t")
        if len(fields) != 10:
            raise ValueError(f"{path}, line {i + 1}: {len(fields)} fields; CoNLL-U has 10, with tabs between them")
        if not fields[0].isdigit():
            continue
        features = dict(f.split("=", 1) for f in fields[5].split("|") if "=" in f)
        words.append(fields[1])
        for task, value in {"upos": fields[3], "deprel": fields[7]}.items():
            labels[task].append(value)
        for task, feature in FEATURES.items():
            labels[task].append(features.get(feature, "none"))
    return sentences
