"""Mistakes of a first hour, and the words that lead out of each. Run by `test_slips` in a process of its own.

There, since the checker of annotations that the tests install would catch most of them before the library can.
"""

import json
import types

import numpy as np
import optax

import mtl_jax as mtl

g = types.SimpleNamespace()  # what the calls below work on; made when they are run


def fit(**arguments):
    return mtl.fit(g.model, g.data, **{"num_steps": 2, "batch_size": 8, "progress": False, **arguments})


# name: (call, words of the message)
SLIPS = {
    # data
    "targets that are no dict": (lambda: mtl.data.from_arrays(g.x, g.y), "targets is ndarray .*{task: labels}"),
    "targets in front": (lambda: mtl.data.from_arrays({"y": g.y}, g.x), "inputs come first"),
    "a label for a task": (lambda: mtl.data.from_arrays(g.x, {"y": 1.0}), "task 'y': labels are .* a label per row"),
    "a number for a name": (lambda: mtl.data.from_arrays(g.x, {0: g.y}), "task name 0 must be text"),
    "rows for a share": (lambda: mtl.data.from_arrays(g.x, {"y": g.y}, val=20), "val=20 must be a share"),
    "None for a share": (lambda: mtl.data.from_arrays(g.x, {"y": g.y}, val=None), "val=None must be .*0 for none"),
    "half a split": (lambda: mtl.data.from_arrays(g.x, {"y": g.y}, val=(g.x,)), r"val has 1 entries"),
    "three rows": (lambda: mtl.data.from_arrays(g.x[:3], {"y": g.y[:3]}), "val gets none of 3 rows"),
    "a seed below 0": (lambda: mtl.data.from_arrays(g.x, {"y": g.y}, seed=-1), "seed=-1 must be"),
    "kinds as text": (lambda: mtl.data.from_arrays(g.x, {"y": g.y}, kinds="regression"), "kinds is 'regression'"),
    "masks as an array": (lambda: mtl.data.from_arrays(g.x, {"y": g.y}, masks=g.y > 0), "masks is ndarray"),
    "inputs of one task only": (
        lambda: mtl.data.from_arrays(mtl.PerTask({"y": g.x}), {"y": g.y, "k": g.k}), "task 'k' has no inputs"),
    "a data set to load": (lambda: mtl.data.load(g.data), "data set is a Dataset; it must be text"),
    "one name to select": (lambda: g.data.select("y"), r"select\(\['y'\]\)"),
    # balancing alone
    "losses in a list": (lambda: mtl.balanced([len] * 30), "losses is a list; it must be a function"),
    "a method that was not called": (lambda: mtl.balanced(len, mtl.balancing.upgrad), "upgrad itself, which was not"),
    "zero losses": (lambda: mtl.balanced(len, tasks=0), "tasks=0 must be how many there are"),
    "a state of one's own": (lambda: g.balanced({"w": g.x}, {}, 0), r"state is dict; balanced.init\(params\) makes"),
    # tasks
    "a task called shared": (lambda: mtl.Task("shared", "binary"), "no task can be called 'shared'"),
    "a blank name": (lambda: mtl.Task(" ", "binary"), "must be text, not blank"),
    "metrics as text": (lambda: mtl.Task("a", "regression", metrics="mae"), r"\('mae',\)"),
    "classes and size": (lambda: mtl.Task("a", "classification", 3, classes=("n", "y")), "size=3, but 2 classes"),
    "a size in floats": (lambda: mtl.Task("a", "classification", 3.0), "size=3.0 must be a whole number .* give 3"),
    # encoders and sharing
    "widths that are none": (lambda: mtl.encoders.mlp(features=None), "mlp: features=None must be positive integers"),
    "an activation by function": (lambda: mtl.encoders.mlp(activation=np.tanh), "activation of mlp is .* by name"),
    "an encoder not called": (lambda: mtl.sharing.hard(mtl.encoders.mlp, g.data.tasks), "mlp itself, .* not called"),
    "an unknown encoder": (lambda: mtl.sharing.hard("mpl", g.data.tasks), "did you mean 'mlp'"),
    "no tasks": (lambda: mtl.sharing.hard(g.encoder), "hard: missing a required argument: 'tasks'"),
    "tasks as text": (lambda: mtl.sharing.mmoe(g.encoder, ["y", "k"]), "mmoe: an entry of tasks is 'y'"),
    "one task": (lambda: mtl.sharing.mmoe(g.encoder, g.data.tasks[0]), r"give a tuple, \(task,\)"),
    "a data set for tasks": (lambda: mtl.sharing.film(g.encoder, g.data), "data.tasks"),
    "tasks in front": (lambda: mtl.sharing.hard(g.data.tasks, g.encoder), "hard: encoder is a tuple"),
    "a number as text": (lambda: mtl.sharing.mmoe(g.encoder, g.data.tasks, experts="4"), r"mmoe\(experts='4'\)"),
    "an argument of another": (lambda: mtl.balancing.upgrad(c=1), "upgrad: got an unexpected keyword argument 'c'"),
    "flat rows for images": (
        lambda: mtl.describe(mtl.sharing.hard("cnn", g.data.tasks), g.data), r"cnn takes images \[B, H, W, C\]"),
    # fit
    "data in front": (lambda: mtl.fit(g.data, g.model), "the model comes first"),
    "an encoder for a model": (lambda: mtl.fit(g.encoder, g.data), "model is an encoder; an architecture makes it"),
    "an architecture not called": (lambda: mtl.fit(mtl.sharing.hard, g.data), "model is hard itself"),
    "a model as text": (lambda: mtl.fit("hard", g.data), r"build it: mtl.sharing.build\('hard'"),
    "a run for a model": (lambda: mtl.fit(g.run, g.data), "model is a run; mtl.transfer.adapt"),
    "a split for a data set": (lambda: mtl.fit(g.model, g.data.train), "data is one split; give the whole"),
    "arrays for a data set": (lambda: mtl.fit(g.model, (g.x, g.y)), "data is a tuple; .*from_arrays"),
    "a name for a data set": (lambda: mtl.fit(g.model, "multi_digits"), r"load it: mtl.data.load\('multi_digits'\)"),
    "a method not called": (lambda: fit(balancer=mtl.balancing.upgrad), "upgrad itself, which was not called"),
    "weights for a method": (lambda: fit(balancer=(1.0, 2.0)), "balancer is 1.0"),
    "no method": (lambda: fit(balancer=[]), "balancer is empty"),
    "weights by task": (lambda: fit(balancer="fixed(weights={'y': 1})"), "fixed: weights is {'y': 1}; .* in the order"),
    "an optimizer not called": (lambda: fit(optimizer=optax.adam), "optimizer is adam itself"),
    "a rate for an optimizer": (lambda: fit(optimizer=1e-3), r"a learning rate goes into optax.adam\(0.001\)"),
    "a rate by another name": (lambda: fit(optimizer="adam(lr=0.1)"), r"'lr'; \(learning_rate, "),
    "steps in floats": (lambda: fit(num_steps=1e3), "num_steps=1000.0 must be a whole number .* give 1000"),
    "rows in floats": (lambda: fit(batch_size=8.0), "batch_size=8.0 must be a whole number"),
    "a seed as text": (lambda: fit(seed="0"), "seed='0' must be"),
    "no seeds": (lambda: fit(seed=()), "seed is empty"),
    "a seed of 33 bits": (lambda: fit(seed=2**32), r"seed=4294967296 must be below 2\*\*32"),
    "freeze as a switch": (lambda: fit(freeze=True), "freeze=True must be a regex"),
    "factors as a dict": (lambda: fit(learning_rate_factors={"shared/.*": 0.1}), "give ordered pairs"),
    "a bound of 0": (lambda: fit(clip_norm=0), "clip_norm=0 lets nothing move"),
    "a penalty below 0": (lambda: fit(l2=-1.0), "l2=-1.0 must be a number of at least 0"),
    "patience of 0": (lambda: fit(patience=0), "patience=0 must be"),
    "a loss by function": (lambda: fit(joint_losses=lambda *x: 0), "joint_losses is .*JointLoss"),
    "a number of devices": (lambda: fit(mesh=2), "mesh is 2; it must be a mesh of devices"),
    # predict, evaluate, describe, compare, adapt
    "a split to predict": (lambda: g.run.predict(g.data.test), "give its inputs, as data.test.inputs"),
    "a data set to predict": (lambda: g.run.predict(g.data), "give the inputs of one split"),
    "no rows": (lambda: g.run.predict(g.x[:0]), "inputs have no rows"),
    "a row": (lambda: g.run.predict(g.x[0]), r"inputs\[None\]"),
    "text to predict": (lambda: g.run.predict(g.x.astype(str)), "hold text .* must be numbers"),
    "nan to predict": (lambda: g.run.predict(g.x * np.nan), "hold nan in row 0, column 0"),
    "a split that is None": (lambda: mtl.evaluate(g.run, None), "the split is None"),
    "a data set for a split": (lambda: mtl.evaluate(g.run, g.data), "the split is a data set"),
    "the split in front": (lambda: mtl.evaluate(g.data.test, g.run), "run is a Split; .* it comes first"),
    "no masks": (lambda: mtl.evaluate(g.run, g.data.test._replace(masks={})), "task 'y' has no masks in the split"),
    "a class beyond": (
        lambda: mtl.evaluate(g.run, mtl.Batch(g.x, {"y": g.y, "k": g.k + 7}, {t: g.y == g.y for t in "yk"})),
        "task 'k': label 7 in row 0 of the split is outside 0..2"),
    "a run to describe": (lambda: mtl.describe(g.run, g.data), "model is a run"),
    "methods as text": (lambda: mtl.compare(g.encoder, g.data, "upgrad"), "methods is 'upgrad'; it must be several"),
    "methods of one part": (lambda: mtl.compare(g.encoder, g.data, {"a": "upgrad"}), r"{name: \(sharing, balancer\)}"),
    "a number of seeds": (lambda: mtl.compare(g.encoder, g.data, ["upgrad"], seeds=3), r"range\(3\)"),
    "a model to compare": (lambda: mtl.compare(g.model, g.data, ["upgrad"]), "compare: encoder is a MultiTaskModel"),
    "an encoder for a front": (lambda: mtl.pareto_front(g.encoder, g.data), "model is an encoder"),
    "tasks to adapt": (lambda: mtl.transfer.adapt(g.data.tasks, g.run), "run is a tuple"),
    "a new task as text": (lambda: mtl.transfer.adapt(g.run, ["new"]), "an entry of tasks is 'new'"),
    "one gradient": (lambda: mtl.balancing.aggregate(mtl.balancing.upgrad(), np.ones(3)), "a gradient per task"),
}  # fmt: skip


def main() -> None:
    """Prints {slip: [type of the error, message]} as JSON."""
    draw = np.random.default_rng(0)
    g.x = draw.normal(size=(60, 5)).astype(np.float32)
    g.y, g.k = g.x[:, 0], np.arange(60) % 3
    g.data = mtl.data.from_arrays(g.x, {"y": g.y, "k": g.k})
    g.encoder = mtl.encoders.mlp(features=(4,))
    g.model = mtl.sharing.hard("mlp(features=(4,))", g.data.tasks)
    g.balanced = mtl.balanced(lambda params, batch: params["w"].mean(0))
    g.run = fit()
    found = {}
    for name, (call, _) in SLIPS.items():
        try:
            found[name] = ["nothing", repr(call())]
        except Exception as error:
            found[name] = [type(error).__name__, str(error)]
    print(json.dumps(found))


if __name__ == "__main__":
    main()
