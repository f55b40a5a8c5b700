"""One table of fine-tuning methods through the properties that each promises; forwards against PEFT's."""

import dataclasses
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import mtl_jax as mtl
from mtl_jax import partition, transfer
from mtl_jax.batch import Batch
from mtl_jax.encoders.base import Encoder
from mtl_jax.gradients.engine import linearize
from mtl_jax.transfer import methods
from tests import tiny
from tests.training.test_ahead import Rows
from tests.transfer.adapting import IMAGES, SERIES, inputs, outputs, source, start, trained

MLP = tiny.BATCH_NORM  # 5 -> 8 -> 6, heads of 3 and 1
HEADS = 6 * 3 + 3 + 6 + 1
NORMS = 2 * (8 + 6)
EVERYTHING = 5 * 8 + 8 * 6 + NORMS + HEADS

# text: (encoder, parameters that train, whether the first function is the run's, whether it merges)
TABLE = {
    "full": (MLP, EVERYTHING, True, True),
    "probe": (MLP, HEADS, True, True),
    "freeze('shared/encoder/stage_0/.*')": (MLP, EVERYTHING - 5 * 8 - 16, True, True),
    "bitfit": (MLP, NORMS + HEADS, True, True),
    "layerwise": (MLP, EVERYTHING, True, True),
    "l2_sp": (MLP, EVERYTHING, True, True),
    "delta_features": (MLP, EVERYTHING, True, True),
    "distillation": (MLP, EVERYTHING, True, True),
    "sam": (MLP, EVERYTHING, True, True),
    "ema": (MLP, EVERYTHING, True, True),
    "mixup": (MLP, EVERYTHING, True, True),
    "cutmix": (IMAGES, None, True, True),
    "lora(rank=2)": (MLP, 2 * (5 + 8 + 8 + 6) + HEADS, True, True),
    "lora(rank=2, alpha=3.0) ": (IMAGES, None, True, True),
    "rslora(rank=2)": (MLP, 2 * (5 + 8 + 8 + 6) + HEADS, True, True),
    "lora_plus(rank=2)": (MLP, 2 * (5 + 8 + 8 + 6) + HEADS, True, True),
    "lora(rank=2, per_task=True)": (MLP, 2 * 2 * (5 + 8 + 8 + 6) + HEADS, True, True),
    "dora(rank=2)": (MLP, 2 * (5 + 8 + 8 + 6) + 8 + 6 + HEADS, True, True),
    "dora(rank=2) ": (IMAGES, None, True, True),
    "hira(rank=2)": (MLP, 2 * (5 + 8 + 8 + 6) + HEADS, True, True),
    "miss(rank=2)": (MLP, 2 * (8 + 6) + HEADS, True, True),
    "oft(block=5)": (MLP, 10 + 2 * 6 + HEADS, True, True),
    "ia3": (MLP, 8 + 6 + HEADS, True, True),
    "ia3 ": (IMAGES, None, True, True),
    "adapters(width=2)": (MLP, 2 * 2 * (8 + 6) + 2 * 2 + 8 + 6 + NORMS + HEADS, True, False),
    "prompt(tokens=3)": (SERIES, 3 * 8 + (8 * 3 + 3) + (8 + 1), False, False),
    "prefix(tokens=3)": (SERIES, 2 * 2 * 3 * 8 + (8 * 3 + 3) + (8 + 1), False, False),
    "delta": (MLP, EVERYTHING, True, True),
    "diff_pruning": (MLP, 2 * (EVERYTHING - HEADS) + HEADS, True, True),
    "mtlora(rank=2, task_rank=1)": (MLP, (2 + 2) * (5 + 8 + 8 + 6) + HEADS, True, True),
    "mtl_lora(rank=2, ups=3)": (MLP, 2 * (5 + 8) + 3 * 2 * (8 + 6) + 2 * 2 * (4 + 3) + HEADS, True, True),
    "polytropon(skills=3, rank=2)": (MLP, 3 * 2 * (5 + 8 + 8 + 6) + 2 * 2 * 3 + HEADS, True, True),
}  # fmt: skip


# Of those that are made of the same parts, one now and the rest by -m slow.
ALIKE = ("sam", "ema", "layerwise", "mixup", "lora_plus(rank=2)", "rslora(rank=2)", "dora(rank=2) ", "ia3 ", "full",
         "hira(rank=2)", "lora(rank=2, per_task=True)", "delta_features")  # fmt: skip


@pytest.mark.parametrize("text", [pytest.param(t, marks=pytest.mark.slow if t in ALIKE else ()) for t in TABLE])
def test_every_method_keeps_what_it_promises(text, tmp_path):
    """The first function is the run's; frozen is what no rule names; merged predicts as unmerged; saved restores."""
    encoder, count, same_start, merges = TABLE[text]
    before, x = source(encoder), inputs(encoder)
    adapted, run = start(before, text.strip())
    first = outputs(before, x)
    if same_start:
        tiny.assert_close(outputs(run, x), first, rtol=1e-5, atol=1e-5)
    after = trained(adapted, run)
    moved = {p for p, v in partition.flatten(after.params).items() if (v != partition.flatten(run.params)[p]).any()}
    assert moved == after.trainable
    if count is not None:
        assert sum(partition.flatten(run.params)[p].size for p in moved) == count
    now = outputs(after, x)
    assert all(np.abs(now[t] - first[t]).max() > 1e-3 for t in now)

    if not merges:
        with pytest.raises(ValueError, match="cannot be merged"):
            transfer.merge_adapter(after)
    elif "task" in text.partition("(")[2] or text.startswith(("mtl_lora", "polytropon")):  # parts of each task's own
        with pytest.raises(ValueError, match="every task has parts of its own"):
            transfer.merge_adapter(after)
        for task in ("color", "price"):
            alone = transfer.merge_adapter(after, task)
            assert alone.model.spec == "hard()" and [t.name for t in alone.tasks] == [task]
            np.testing.assert_allclose(outputs(alone, x)[task], now[task], rtol=1e-4, atol=1e-5)
    else:
        plain = transfer.merge_adapter(after)
        assert plain.model.spec == "hard()"
        shapes = jax.tree.map(jnp.shape, before.variables)
        assert jax.tree.map(jnp.shape, plain.variables) == shapes
        tiny.assert_close(outputs(plain, x), now, rtol=1e-4, atol=1e-5)

    if after.model.base is not None and not text.startswith(("distillation", "delta_features")):
        transfer.save_adapter(after, tmp_path / "a.npz")
        again = transfer.load_adapter(before, tmp_path / "a.npz")
        tiny.assert_same(again.params, after.params)
        tiny.assert_close(outputs(again, x), now, rtol=1e-6, atol=1e-6)


def test_every_method_is_in_the_table_or_trains_in_stages():
    tabled = {text.partition("(")[0].strip() for text in TABLE}
    assert set(methods.NAMES) - tabled == {"ewc", "freeze_then_unfreeze", "gradual_unfreezing", "lp_ft"}
    for name, function in methods.NAMES.items():
        assert "Source:" in function.__doc__ and methods.build(name).learning_rate > 0


# --- one dense layer, as PEFT 0.21.2 computes it --------------------------------------------------------------------
X = [[0.13, -0.13, 0.64, 0.1], [-0.54, 0.36, 1.3, 0.95]]
W = [[-0.7, -1.27, -0.62], [0.04, -2.33, -0.22], [-1.25, -0.73, -0.54], [-0.32, 0.41, 1.04]]
BIAS = [-0.13, 1.37, -0.67]
A = [[0.35, 0.9], [0.09, -0.74], [-0.92, -0.46], [0.22, -1.01]]
B = [[-0.21, -0.16, 0.54], [0.21, 0.36, -0.65]]
PAIR = {"a": A, "b": B}
PEFT = {
    "lora(rank=2, alpha=3.0)": (PAIR, [[-0.9477, 1.11113, -1.21768], [-2.03398, -0.31538, 1.19744]]),
    "rslora(rank=2, alpha=3.0)": (PAIR, [[-0.90193, 1.12336, -1.32293], [-2.18616, -0.71836, 1.74662]]),
    "dora(rank=2, alpha=3.0)": (
        PAIR | {"magnitude": [0.63, 1.28, 1.99]}, [[-0.48995, 1.25913, -1.07183], [-0.96813, 0.64817, 0.70011]],
    ),
    "hira(rank=2)": (PAIR, [[-1.13682, 0.94454, -0.76754], [-1.7039, 0.93896, 0.60193]]),
    "miss(rank=2)": (
        {"shard": [[-1.26, 1.51, 1.35], [0.78, 0.26, -0.31]]}, [[-2.0518, 2.2365, 0.0852], [-1.6024, 2.1457, 0.4915]],
    ),
    "oft(block=2)": ({"rotation": [[1.32], [0.36]]}, [[-0.61158, 1.24104, -1.19563], [-2.43614, -1.45281, -2.03679]]),
    "ia3": ({"scale": [1.46, 1.96, 1.8]}, [[-1.54497, 2.11994, -1.73448], [-2.43324, 1.2887, -0.23112]]),
}  # fmt: skip


class Linear(nn.Module):
    """One dense layer."""

    @nn.compact
    def __call__(self, x, *, train):
        return nn.Dense(3, name="dense")(x)


@pytest.mark.parametrize("text", PEFT)
def test_a_layer_gives_what_peft_gives(text):
    given, expected = PEFT[text]
    model = methods.attach(mtl.sharing.hard(Encoder((Linear(),)), [mtl.Task("a", "binary")]), methods.build(text))
    batch = Batch(jnp.asarray(X, jnp.float32), {}, {})
    variables = model.init(jax.random.key(0), batch)

    def value(path, leaf):
        name = path.rpartition("/")[2]
        if "adapter" in path:
            return jnp.asarray(given[name], jnp.float32)
        return jnp.asarray({"kernel": W, "bias": BIAS}[name], jnp.float32) if path.startswith("shared/") else leaf

    flat = {p: value(p, x) for p, x in partition.flatten(variables["params"]).items()}
    variables["params"] = partition.unflatten(flat, variables["params"])
    found, _, _ = model.encode(variables, batch, train=False)
    np.testing.assert_allclose(found, expected, atol=2e-5)


# --- what balancers see ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize("text", [
    "mtlora(rank=2, task_rank=1)", *(pytest.param(t, marks=pytest.mark.slow) for t in ("lora(rank=2)", "dora(rank=2)")),
])  # fmt: skip
def test_the_jacobian_is_of_the_adapters_alone(text):
    """And its rows, and the gradients of the tasks' own parts, are those of automatic differentiation, task by task."""
    data = tiny.data().select(["color", "price"])
    adapted, run = start(source(), text, data.tasks)
    run = trained(adapted, run)
    batch = tiny.batch(8, data)
    tasks = data.tasks

    @jax.jit
    def both(variables):
        line = linearize(run.model, variables, batch, tasks=tasks, trainable=run.trainable, train=False)
        return line.jacobian(), line.own()

    rows, own = both(run.variables)
    assert set(rows) == {p for p in run.trainable if p.startswith("shared/")}
    assert all("/adapter/" in p for p in rows)
    moving = {p: x for p, x in partition.flatten(run.params).items() if p in run.trainable}

    def loss(moving, index):
        variables = {**run.variables, "params": partition.unflatten(moving, run.params)}
        outputs = mtl.sharing.forward(run.model, variables, batch)[0]
        t = tasks[index]
        total, count = mtl.tasks.loss_sum(t, outputs[t.name], batch.targets[t.name], batch.masks[t.name])
        return total / count

    for i, task in enumerate(tasks):
        expected = jax.jit(jax.grad(loss), static_argnums=1)(moving, i)
        for path, g in expected.items():
            if path in rows:
                np.testing.assert_allclose(rows[path][i], g, rtol=1e-4, atol=1e-5, err_msg=path)
            elif partition.owner(path) == task.name:
                np.testing.assert_allclose(own[path], g, rtol=1e-4, atol=1e-5, err_msg=path)
            else:
                assert not np.any(g), path  # a leaf of another task's


def test_the_gradient_of_a_thin_matrix_is_made_the_fast_way():
    """The same numbers, from a product that gives [out, in], which XLA does not swap back."""
    x, a = (jax.random.normal(jax.random.key(i), s) for i, s in enumerate([(24, 40), (40, 2)]))
    function = jax.grad(lambda a: ((x @ methods.base.with_transposed_gradient(a)) ** 2).sum())
    np.testing.assert_allclose(function(a), 2 * x.T @ (x @ a), rtol=1e-5, atol=1e-4)
    text = jax.jit(function).lower(a).compile().as_text()
    assert "f32[2,40]{1,0} dot(" in text and "f32[40,2]{1,0} dot(" not in text


def test_a_frozen_trunk_costs_forward_and_head():
    """XLA's count of a step: a probe's within 5% of forward and the head's training; LoRA makes no kernel gradient."""
    data = tiny.data().select(["sold"])
    encoder = "mlp(features=(256, 256, 256))"
    plain = tiny.model(data.tasks, encoder=encoder)
    batch = tiny.batch(16, data)

    def flops(function, *args):
        return jax.jit(function).lower(*args).compile().cost_analysis()["flops"]

    counted = {}
    for text in ("full", "probe", "lora(rank=2)"):
        method = methods.build(text)
        model = methods.attach(plain, method)
        paths = list(partition.flatten(tiny.init(model, batch)["params"]))
        freeze = [*(r for r in method.trains if methods.base.hits(r[0], paths)), (".*", False)]
        freeze = None if text == "full" else freeze
        step, first = tiny.training("equal", source=data, model=model, freeze=freeze, optimizer=optax.sgd(0.1))
        counted[text] = flops(step, first, batch)
        held = sum(x.size for x in jax.tree.leaves(first.opt_state))
        assert text == "full" or held < 5000
    variables = tiny.init(plain, batch)
    forwards = flops(lambda v, b: plain.encode(v, b, train=False)[0], variables, batch)
    features = plain.encode(variables, batch, train=False)[0]

    def head(params, features):
        read = {**variables, "params": {**variables["params"], "tasks": params}}
        out = plain.decode(read, {"sold": features}, train=True)[0]["sold"]
        return mtl.tasks.loss_sum(data.tasks[0], out, batch.targets["sold"], batch.masks["sold"])[0]

    of_head = flops(jax.grad(head), variables["params"]["tasks"], features)
    assert counted["probe"] < 1.05 * (forwards + of_head)
    assert counted["lora(rank=2)"] < 0.72 * counted["full"]


# --- what is wrong is said ------------------------------------------------------------------------------------------
def test_errors(tmp_path):
    run, tasks = source(), [mtl.Task("sold", "binary")]

    def adapt(method, **given):
        return transfer.adapt(run, tasks, method=method, **given)

    with pytest.raises(ValueError, match=r"unknown fine-tuning method 'lra'; did you mean 'lora'"):
        adapt("lra")
    with pytest.raises(ValueError, match=r"unknown argument of fine-tuning method 'lora' 'rnk'"):
        adapt("lora(rnk=2)")
    with pytest.raises(ValueError, match=r"method is lora itself, which was not called"):
        adapt(methods.lora)
    with pytest.raises(ValueError, match=r"rule 'shared/.\*/querry/kernel' hits no matrix; there are shared/encoder/s"):
        adapt("lora(paths='shared/.*/querry/kernel')")
    with pytest.raises(ValueError, match=r"rule 'shared/.\*/bias' hits no matrix"):
        adapt("lora(paths='shared/.*/bias')")
    with pytest.raises(ValueError, match=r"rule 'share/.\*' matches no parameter"):
        adapt("freeze(paths='share/.*')")
    with pytest.raises(ValueError, match=r"freezes every parameter; nothing is left to train"):
        adapt("freeze(paths='.*')")
    with pytest.raises(ValueError, match=r"freezes every parameter"):
        adapt("lora", freeze=".*")
    with pytest.raises(ValueError, match=r"hits no attention"):
        adapt("prefix")
    with pytest.raises(ValueError, match=r"ewc: .* give adapt the old data, old=data"):
        adapt("ewc")
    with pytest.raises(ValueError, match=r"old is given, and method 'lora' asks for"):
        adapt("lora", old=tiny.data())
    with pytest.raises(ValueError, match=r"lora: rank=0 must be a whole number of at least 1"):
        adapt("lora(rank=0)")
    with pytest.raises(ValueError, match=r"is adapted already, by lora\(rank=2\); transfer.merge_adapter\(run\)"):
        transfer.adapt(start(run, "lora(rank=2)")[1], tasks, method="lora")
    with pytest.raises(ValueError, match=r"trains in several stages: give it to mtl.transfer.fine_tune"):
        mtl.fit(adapt("lp_ft"), tiny.data())
    with pytest.raises(ValueError, match=r"freeze='shared/.\*' beside method 'lora': give it to `adapt`"):
        mtl.fit(adapt("lora"), tiny.data(), freeze="shared/.*")
    with pytest.raises(ValueError, match=r"cutmix: it pastes boxes of images"):
        tiny.fit(adapt("cutmix"), tiny.data())


def test_files_that_are_no_adapter_and_adapters_of_another_trunk(tmp_path):
    run = source()
    adapted, first = start(run, "lora(rank=2)")
    after = trained(adapted, first)
    size = transfer.save_adapter(after, tmp_path / "a.npz")
    assert size < 8192
    other = trained(*start(run, "full"))
    with pytest.raises(ValueError, match="a.npz is of another trunk: its parameters or statistics are not those"):
        transfer.load_adapter(other, tmp_path / "a.npz")
    with pytest.raises(ValueError, match=r"is of another trunk: it was trained on hard\(\) over mlp"):
        transfer.load_adapter(source(SERIES), tmp_path / "a.npz")
    unnamed = dataclasses.replace(run, model=run.model._replace(spec=None))
    with pytest.raises(ValueError, match="the trunk's model was not made of named parts"):
        transfer.load_adapter(unnamed, tmp_path / "a.npz")
    with pytest.raises(FileNotFoundError, match="there is no adapter"):
        transfer.load_adapter(run, tmp_path / "b.npz")
    with pytest.raises(ValueError, match=r"ends in .npz or .safetensors"):
        transfer.save_adapter(after, tmp_path / "a.bin")
    whole = (tmp_path / "a.npz").read_bytes()
    (tmp_path / "half.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"half.npz is no adapter"):
        transfer.load_adapter(run, tmp_path / "half.npz")
    np.savez(tmp_path / "c.npz", a=np.zeros(2))
    with pytest.raises(ValueError, match=r"c.npz is no adapter"):
        transfer.load_adapter(run, tmp_path / "c.npz")


# --- mixed inputs ---------------------------------------------------------------------------------------------------
def test_mixup_by_labels_that_stay_is_mixup_in_expectation():
    """Against the definition, l loss(y) + (1 - l) loss(y') with l from Beta(alpha, alpha), over all pairs of points.

    And what is drawn has the moments of Beta(alpha + 1, alpha): of rows of the identity, l lies on the diagonal.
    """
    from scipy.stats import beta

    alpha, at = 0.4, (np.arange(4000) + 0.5) / 4000
    x = np.random.default_rng(0).normal(size=12)
    y = (x > 0).astype(float)
    i, j = (k.ravel()[:, None] for k in np.indices((12, 12)))

    def loss(x, y):
        return np.logaddexp(0, 3 * x) - y * 3 * x

    def mix(share):
        return share * x[i] + (1 - share) * x[j]

    share, ours = beta.ppf(at, alpha, alpha), beta.ppf(at, alpha + 1, alpha)
    wanted = (share * loss(mix(share), y[i]) + (1 - share) * loss(mix(share), y[j])).mean()
    assert loss(mix(ours), y[i]).mean() == pytest.approx(wanted, rel=2e-3)
    assert wanted > 1.3 * loss(x, y).mean()
    drawn = np.diag(methods.mixing.mixed_up(jax.random.key(0), jnp.eye(3000), alpha))
    assert drawn.mean() == pytest.approx(beta.mean(alpha + 1, alpha), abs=0.02)
    assert drawn.var() == pytest.approx(beta.var(alpha + 1, alpha), abs=0.01)


def test_mixup_of_bytes_is_mixup_of_the_numbers_that_they_become():
    """In front of `augmented`, which reads bytes as numbers in 0..1 and takes such numbers as they are."""
    encoder = mtl.encoders.augmented("cnn(features=(4,))", shift=0)
    model = mtl.sharing.hard(encoder, [mtl.Task("a", "regression")])
    x = np.random.default_rng(0).integers(0, 255, (6, 8, 8, 1)).astype(np.uint8)
    mixed = transfer.methods.attach(model, transfer.methods.mixup())
    variables = mixed.init(jax.random.key(0), mtl.Batch(jnp.asarray(x), {}, {}))
    found = [
        mixed.encode(variables, mtl.Batch(jnp.asarray(inputs), {}, {}), train=True, rng=jax.random.key(1))[0]
        for inputs in (x, x.astype(np.float32) / 255)
    ]
    np.testing.assert_allclose(found[0], found[1], atol=1e-6)
    with pytest.raises(ValueError, match="mixup: it adds inputs up"):
        plain = mtl.sharing.hard(mtl.encoders.cnn(features=(4,)), [mtl.Task("a", "regression")])
        transfer.methods.attach(plain, transfer.methods.mixup()).encode(
            variables, mtl.Batch(jnp.asarray(x), {}, {}), train=True, rng=jax.random.key(1)
        )


def test_cutmix_takes_every_pixel_from_the_image_or_its_partner():
    images = jnp.broadcast_to(jnp.arange(1.0, 65.0)[:, None, None, None], (64, 8, 8, 1))
    mixed = np.asarray(methods.mixing.cut(jax.random.key(0), images, 1.0))
    own = mixed == np.asarray(images)
    others = [np.unique(m[m != i + 1]) for i, m in enumerate(mixed)]
    assert all(len(o) <= 1 for o in others) and sum(len(o) for o in others) > 30
    assert 0.6 < own.mean() < 0.9


def test_the_penalties():
    """L2-SP is alpha / 2 |w - w0|^2 + beta / 2 |head|^2; EWC weighs by squared gradients row by row."""
    adapted, run = start(source(), "l2_sp(alpha=0.3, beta=0.2)")
    after = trained(adapted, run)
    w, w0 = (partition.flatten(r.params) for r in (after, run))
    held = sum(float(((w[p] - w0[p]) ** 2).sum()) for p in w if p.startswith("shared/"))
    heads = sum(float((w[p] ** 2).sum()) for p in w if p.startswith("tasks/"))
    assert float(after.model.penalty(after.variables)) == pytest.approx(0.15 * held + 0.1 * heads, rel=1e-5)

    data = tiny.data().select(["color", "price"])
    few = Rows(data.train.inputs, max_bytes=data.train.inputs[:5].nbytes)  # on disk, and no more may be read
    old = dataclasses.replace(data, train=data.train._replace(inputs=few))
    adapted, run = start(source(), "ewc(strength=2.0, rows=5)", [data.tasks[0]], old=old)
    assert set(few.seen) == set(range(5))
    weights = {
        p.removeprefix("shared/start/fisher/"): x for p, x in adapted.variables["state"].items() if "fisher" in p
    }
    before = source()

    def loss(kernel, row):
        params = partition.unflatten({"shared/encoder/stage_1/dense/kernel": kernel}, before.params)
        one = jax.tree.map(lambda x: jnp.asarray(x[row : row + 1]), mtl.Batch(*data.train[:3]))
        out = mtl.sharing.forward(before.model, {**before.variables, "params": params}, one)[0]
        return sum(mtl.tasks.loss_sum(t, out[t.name], one.targets[t.name], one.masks[t.name])[0] for t in data.tasks)

    kernel = before.params["shared"]["encoder"]["stage_1"]["dense"]["kernel"]
    squares = [np.asarray(jax.grad(loss)(kernel, i)) ** 2 for i in range(5)]
    np.testing.assert_allclose(
        weights["shared/encoder/stage_1/dense/kernel"], np.mean(squares, 0), rtol=1e-3, atol=1e-6
    )
    after = trained(adapted, run)
    w, w0 = (partition.flatten(r.params) for r in (after, run))
    expected = sum(float((np.asarray(f) * (w[p] - w0[p]) ** 2).sum()) for p, f in weights.items())
    assert float(after.model.penalty(after.variables)) == pytest.approx(expected, rel=1e-4)
    assert math.isclose(float(run.model.penalty(run.variables)), 0.0)
