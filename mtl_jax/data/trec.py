"""TREC: what a question asks for, in 6 coarse and 50 fine classes; 5,952 questions (Li and Roth, COLING 2002)."""

import os
import pathlib
import warnings
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from mtl_jax import parts
from mtl_jax.batch import Batch
from mtl_jax.data.arrays import divide, finish
from mtl_jax.data.dataset import Dataset, gather_rows
from mtl_jax.data.sources import chosen_tasks, find
from mtl_jax.data.tables.files import read_bytes
from mtl_jax.data.text import check_counts, vocabulary_of
from mtl_jax.data.tokenizing import read_tokenizer
from mtl_jax.reporting import many
from mtl_jax.tasks import Task

TASKS = ("coarse", "fine")
FILES = {"train": "train_5500", "test": "TREC_10"}
DEFAULTS = {
    "tasks": TASKS, "tokenizer": None, "length": 48, "val": 0.1, "seed": 0, "min_count": 2, "lowercase": True,
    "affixes": None,
}  # fmt: skip
OF_WORDS = ("min_count", "lowercase", "affixes")
SOURCE = "cogcomp.seas.upenn.edu/Data/QA/QC, or data/TREC of github.com/FreedomIntelligence/qnn"


class Question(NamedTuple):
    """A question, its words with spaces between, and its class, such as DESC:manner."""

    text: str
    label: str


def trec(
    tasks: Sequence[str] = TASKS,
    tokenizer: str | os.PathLike | None = None,
    length: int = 48,
    val: float = 0.1,
    seed: int = 0,
    min_count: int = 2,
    lowercase: bool = True,
    affixes: int | None = None,
    data_dir: str | pathlib.Path | None = None,
) -> Dataset:
    """Coarse class (6, such as DESC) and fine class (50, such as DESC:manner) of 4,909 / 543 / 500 questions.

    Inputs are {"tokens": int32 [N, length], "mask": bool}. The test split is the published one, TREC 10; validation
    comes from the other questions, with its share of every fine class. Of these 63 are there more than once (71 rows
    too many, in one case with two labels), and stay together. As published, 10 of the 500 test questions are among
    them, word for word.

    Classes are those of all files, whatever the split. The test has 42 of the 50: the other 8 never count in it. A
    class of validation or test that training lacks can only be wrong; there is none in the published files, and
    a warning says where there is.

    Args:
      tasks: among coarse and fine.
      tokenizer: a folder or tokenizer.json, of the pretrained model that is to read the questions; the vocabulary is
        its. None: words, of the vocabulary of all training questions (3,477 ids by default).
      length: tokens of a row; of longer questions the rest is cut off, which is warned of. The longest have 37 words,
        or 41 WordPieces of BERT; those of the test 17 and 24.
      val: share of the training questions that validates.
      seed: of that division.
      min_count: words that training has less often are unknown.
      lowercase: whether words are looked up in lower case.
      affixes: number of buckets for what beginning, end and shape of each word tell, as `ud_ewt` has it.
      data_dir: where ``trec/train_5500.label`` and ``trec/TREC_10.label`` lie; by default the environment's
        MTL_JAX_DATA.

    Raises:
      FileNotFoundError, ValueError: naming file and line.
    """
    tasks = chosen_tasks("trec", tasks, TASKS)
    tokenizer = None if tokenizer is None else os.fspath(tokenizer)
    given = {"tasks": tasks, "tokenizer": tokenizer, "length": length, "val": val, "seed": seed,
             "min_count": min_count, "lowercase": lowercase, "affixes": affixes}  # fmt: skip
    check_counts("trec", length=length, min_count=min_count)
    check_counts("trec", least=2, affixes=affixes)
    for key in OF_WORDS if tokenizer is not None else ():
        if given[key] != DEFAULTS[key]:
            raise ValueError(f"data set 'trec': {key} is about words, and a tokenizer makes its own; leave one out")
    found = {k: read_questions(find(f"trec/{f}.label", data_dir, "trec", SOURCE)) for k, f in FILES.items()}
    if tokenizer is None:
        texts = {k: [q.text.split() for q in own] for k, own in found.items()}
        vocabulary = vocabulary_of(texts["train"], min_count, lowercase, affixes)
        if cut := sum(len(words) > length for own in texts.values() for words in own):
            warnings.warn(f"{cut} of {sum(map(len, texts.values()))} questions are longer than {length} words, and are "
                          "cut", UserWarning, stacklevel=2)  # fmt: skip
    else:
        texts = {k: [q.text for q in own] for k, own in found.items()}
        vocabulary = read_tokenizer(tokenizer)
    labels = {k: {"coarse": [q.label.split(":")[0] for q in own], "fine": [q.label for q in own]}
              for k, own in found.items()}  # fmt: skip
    classes = {t: sorted({label for own in labels.values() for label in own[t]}) for t in tasks}
    whole = {}
    for key, own in labels.items():
        targets = {t: np.array([classes[t].index(x) for x in own[t]], np.int32) for t in tasks}
        masks = {t: np.ones(len(own[t]), bool) for t in tasks}
        whole[key] = Batch(vocabulary.encode(texts[key], length), targets, masks)
    rows = held_out(found["train"], val, seed)
    raw = {**{k: gather_rows(whole["train"], index) for k, index in rows.items()}, "test": whole["test"]}
    warn_of_classes(raw, classes)
    spec = parts.call("trec", {k: v for k, v in given.items() if v != DEFAULTS[k]})
    made = {t: Task(t, "classification", classes=tuple(classes[t])) for t in tasks}
    return finish(raw, tasks, made, "trec", spec=spec, vocabulary=vocabulary, rows=rows)


def held_out(questions: Sequence[Question], val: float, seed: int) -> dict[str, np.ndarray]:
    """{"train", "val": rows}: each with its share of every fine class, and all rows of one question in one of them."""
    texts, first, which = np.unique([q.text.lower() for q in questions], return_index=True, return_inverse=True)
    fine = np.array([questions[i].label for i in first])
    distinct = Batch(np.arange(len(texts)), {"fine": fine}, {"fine": np.ones(len(texts), bool)})
    _, rows, _ = divide({"train": distinct}, {"val": val}, seed, "stratified")
    return {key: np.flatnonzero(np.isin(which, index)) for key, index in rows.items()}


def warn_of_classes(raw: dict[str, Batch], classes: dict[str, list[str]]) -> None:
    """A warning for classes of another split that training lacks."""
    for task, names in classes.items():
        for key in [k for k in raw if k != "train"]:
            there, trained = (set(raw[k].targets[task].tolist()) for k in (key, "train"))
            if lost := [names[i] for i in sorted(there - trained)]:
                warnings.warn(f"data set 'trec': training has no question of class {many.some(lost)} of task {task!r}, "
                              f"and {key} has; these can only be wrong", UserWarning, stacklevel=3)  # fmt: skip


def read_questions(path: pathlib.Path) -> list[Question]:
    """The questions of a file, one a line: ``DESC:manner How did serfdom develop ?``.

    The published file has one byte beyond ASCII, 0xF0 for the space of "sister city", which is read as one. All others
    are Latin-1.

    Raises:
      ValueError: naming file and line, for a line of another form.
    """
    found = []
    for i, line in enumerate(read_bytes(path).replace(b"\xf0", b" ").decode("latin-1").split("\n")):
        label, _, text = line.strip().partition(" ")
        coarse, _, fine = label.partition(":")
        if coarse and fine and text.strip():
            found.append(Question(text.strip(), label))
        elif line.strip():
            raise ValueError(f"{path}, line {i + 1}: {line[:60]!r} is not of the form COARSE:fine question")
    if not found:
        raise ValueError(f"{path} holds no question")
    return found
