"""What `transfer.py` measures: a drawn BERT in Hugging Face's files, which both libraries read, and our steps."""

import json
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import mtl_jax as mtl
from mtl_jax import balancing, partition, transfer
from mtl_jax.training import optimizers, state
from mtl_jax.training.step import make_train_step
from scripts.benchmarks import measuring

SIZES = {"minilm": (384, 6, 12, 1536), "bert_base": (768, 12, 12, 3072)}  # width, blocks, heads, hidden
BATCH, TOKENS, CLASSES, VOCABULARY = 16, 64, 5, 30522
MATRICES = {"attention.self.query": "ww", "attention.self.key": "ww", "attention.self.value": "ww",
            "attention.output.dense": "ww", "intermediate.dense": "hw", "output.dense": "wh"}  # fmt: skip


def write(folder: pathlib.Path, size: str) -> None:
    """A folder bert of drawn weights, and batch.npz: tokens, labels and a head's kernel."""
    from safetensors.numpy import save_file

    width, depth, heads, hidden = SIZES[size]
    draw = np.random.default_rng(0)

    def normal(*shape: int) -> np.ndarray:
        return (0.02 * draw.normal(size=shape)).astype(np.float32)

    rows = {"word": VOCABULARY, "position": 512, "token_type": 2}
    arrays = {f"embeddings.{n}_embeddings.weight": normal(count, width) for n, count in rows.items()}
    norms = ["embeddings.LayerNorm"]
    for i in range(depth):
        for name, sides in MATRICES.items():
            out, into = ({"w": width, "h": hidden}[s] for s in sides)
            arrays |= {f"encoder.layer.{i}.{name}.weight": normal(out, into),
                       f"encoder.layer.{i}.{name}.bias": np.zeros(out, np.float32)}  # fmt: skip
        norms += [f"encoder.layer.{i}.{n}.LayerNorm" for n in ("attention.output", "output")]
    for name in norms:
        arrays |= {f"{name}.weight": np.ones(width, np.float32), f"{name}.bias": np.zeros(width, np.float32)}
    (folder / "bert").mkdir()
    save_file(arrays, folder / "bert" / "model.safetensors", metadata={"format": "pt"})
    config = {
        "model_type": "bert", "architectures": ["BertModel"], "hidden_size": width, "num_hidden_layers": depth,
        "num_attention_heads": heads, "intermediate_size": hidden, "vocab_size": VOCABULARY, "hidden_act": "gelu",
        "max_position_embeddings": 512, "type_vocab_size": 2, "layer_norm_eps": 1e-12, "pad_token_id": 0,
    }  # fmt: skip
    (folder / "bert" / "config.json").write_text(json.dumps(config))
    labels = draw.integers(0, CLASSES, BATCH)
    np.savez(folder / "batch.npz", tokens=texts(draw, BATCH), labels=labels, head=normal(width, CLASSES))


def texts(draw: np.random.Generator, rows: int) -> np.ndarray:
    """Token ids [rows, TOKENS] of texts of half to all of that, padded with 0."""
    there = np.arange(TOKENS) < draw.integers(TOKENS // 2, TOKENS + 1, (rows, 1))
    return np.where(there, draw.integers(1, VOCABULARY, (rows, TOKENS)), 0).astype(np.int32)


def read(folder: pathlib.Path) -> tuple[mtl.Run, mtl.Batch]:
    """(a run that has not trained, with the weights and the head; the batch)."""
    task, stored = mtl.Task("topic", "classification", size=CLASSES), np.load(folder / "batch.npz")
    targets, masks = {"topic": jnp.asarray(stored["labels"], jnp.int32)}, {"topic": jnp.ones(BATCH, bool)}
    batch = mtl.Batch(jnp.asarray(stored["tokens"]), targets, masks)
    adapted = transfer.from_pretrained(folder / "bert", pool="mean").adapt(task)
    variables = first_variables(adapted, batch)
    flat = partition.flatten(variables["params"])
    kernel = next(p for p, x in flat.items() if p.startswith("tasks/topic/") and x.ndim == 2)
    flat = {**flat, kernel: jnp.asarray(stored["head"])}
    variables = {**variables, "params": partition.unflatten(flat, variables["params"])}
    return mtl.Run(adapted.model, (task,), variables, [], batch), batch


def first_variables(adapted: Any, batch: mtl.Batch) -> dict[str, Any]:
    """What was adapted brings along; the rest is drawn."""
    drawn = adapted.model.init(jax.random.key(0), batch)
    return {
        kind: partition.unflatten({**partition.flatten(tree), **adapted.variables.get(kind, {})}, tree)
        for kind, tree in drawn.items()
    }


class Step(NamedTuple):
    """A method's step, not compiled yet."""

    function: Callable
    first: Callable[[], Any]  # makes a state to start from
    batch: Any
    trains: int  # how many numbers
    held: int  # numbers in the optimizer's state


def of_method(folder: pathlib.Path, method: str) -> Step:
    """The step of `fit` for what `adapt` makes."""
    run, batch = read(folder)
    adapted = transfer.adapt(run, run.tasks, method=method, load=((".*", True),))
    variables = first_variables(adapted, batch)
    trainable = partition.trainable_paths(variables["params"], adapted.freeze)
    optimizer, balancer = optimizers.per_owner(optax.adam(1e-3)), balancing.equal()
    layout, variables, batch = measuring.lying(adapted.model, optimizer, variables, batch)
    flat = partition.flatten(variables["params"])
    shapes = jax.tree.map(lambda x: np.array(x), variables)  # on the host, so that a state's arrays are its own
    del run, variables

    def first() -> Any:
        return state.create(shapes, 1, optimizer, balancer, trainable, jax.random.key(0), layout=layout)

    step = make_train_step(adapted.model, optimizer, balancer, trainable, layout=layout)
    held = sum(x.size for x in jax.tree.leaves(jax.eval_shape(first).opt_state))
    return Step(step, first, batch, sum(x.size for p, x in flat.items() if p in trainable), held)
