"""ATIS: what a traveller wants, and which words say so; intents and slots of 5,871 utterances (Hemphill et al., 1990).

The split is that of Goo et al. ("Slot-Gated modeling for joint slot filling and intent prediction", NAACL 2018).
"""

import pathlib
from collections.abc import Sequence

import numpy as np

from mtl_jax import parts
from mtl_jax.batch import Batch
from mtl_jax.data.arrays import finish
from mtl_jax.data.dataset import Dataset
from mtl_jax.data.sources import chosen_tasks, find
from mtl_jax.data.tables import read_text
from mtl_jax.data.text import check_counts, padded, vocabulary_of
from mtl_jax.tasks import Task

TASKS = ("intent", "slots")
FOLDERS = {"train": "train", "val": "valid", "test": "test"}
SOURCE = "data/atis of github.com/MiuLab/SlotGated-SLU"


def atis(
    tasks: Sequence[str] = TASKS,
    max_length: int = 48,
    min_count: int = 1,
    data_dir: str | pathlib.Path | None = None,
) -> Dataset:
    """Intent (classification of 26) and slots (tagging, 127 IOB2 tags) of 4,478 / 500 / 893 utterances.

    Inputs are {"tokens": int32 [N, max_length], "mask": bool}. The vocabulary is the training split's: 869 ids, with
    those of padding and of unknown words. Classes are those of all splits, so that a label that training does not have
    (5 intents and 7 tags) counts as an error. Two intents at once are a class of their own.

    Args:
      tasks: among intent and slots.
      max_length: longer utterances are cut off; the longest has 46 words.
      min_count: words that training has less often are unknown; with 1 no training word is, and the unknown word's
        embedding is never trained. With 2 there are 612 ids.
      data_dir: where ``atis/train/seq.in`` and its kin lie; by default the environment's MTL_JAX_DATA.

    Raises:
      FileNotFoundError, ValueError: naming file and line.
    """
    tasks = chosen_tasks("atis", tasks, TASKS)
    check_counts("atis", max_length=max_length, min_count=min_count)
    words, labels = {}, {"intent": {}, "slots": {}}
    for split, folder in FOLDERS.items():
        files = {f: find(f"atis/{folder}/{f}", data_dir, "atis", SOURCE) for f in ("seq.in", "seq.out", "label")}
        lines = {f: read_text(path).splitlines() for f, path in files.items()}
        words[split] = [line.split() for line in lines["seq.in"]]
        labels["slots"][split] = [line.split() for line in lines["seq.out"]]
        labels["intent"][split] = [line.strip() for line in lines["label"]]
        counts = [len(x) for x in lines.values()]
        if len(set(counts)) > 1:
            raise ValueError(
                "{}: seq.in, seq.out and label have {}, {} and {} lines".format(files["label"].parent, *counts)
            )
        for i, (sentence, tags) in enumerate(zip(words[split], labels["slots"][split], strict=True)):
            if len(sentence) != len(tags):
                raise ValueError(f"{files['seq.out']}, line {i + 1}: {len(tags)} tags for {len(sentence)} words")
    vocabulary = vocabulary_of(words["train"], min_count)
    intents = tuple(sorted({label for split in labels["intent"].values() for label in split}))
    tags = tuple(sorted({t for split in labels["slots"].values() for row in split for t in row}))
    made = {
        "intent": Task("intent", "classification", classes=intents),
        "slots": Task("slots", "tagging", classes=tags),
    }
    raw = {}
    for split in FOLDERS:
        inputs = vocabulary.encode(words[split], max_length)
        intent = [intents.index(label) for label in labels["intent"][split]]
        number = {t: i for i, t in enumerate(tags)}
        slots, mask = padded([[number[t] for t in row] for row in labels["slots"][split]], max_length)
        targets = {"intent": np.array(intent, np.int32), "slots": slots}
        masks = {"intent": np.ones(len(intent), bool), "slots": mask}
        raw[split] = Batch(inputs, {t: targets[t] for t in tasks}, {t: masks[t] for t in tasks})
    given = {"tasks": tasks, "max_length": max_length, "min_count": min_count}
    defaults = {"tasks": TASKS, "max_length": 48, "min_count": 1}
    spec = parts.call("atis", {k: v for k, v in given.items() if v != defaults[k]})
    return finish(raw, tasks, {t: made[t] for t in tasks}, "atis", spec=spec, vocabulary=vocabulary)
