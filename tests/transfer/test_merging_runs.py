"""Runs of one start that become one, what enters their layers, and healing."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mtl_jax as mtl
from mtl_jax import partition
from mtl_jax.batch import PerTask
from mtl_jax.encoders import convolution
from mtl_jax.transfer.merging import layer_inputs, methods, start, statistics
from mtl_jax.transfer.merging.stages import stages_of
from tests import tiny

KERNELS = [f"shared/encoder/stage_{i}/dense/kernel" for i in range(2)]


def alone(task, **arguments):
    data = tiny.data().select([task])
    return tiny.fit(tiny.model(data.tasks), data, **arguments)


@pytest.fixture(scope="module")
def runs():
    """Runs of one task each, of one initialisation."""
    return [alone(t, num_steps=10) for t in ("color", "price")]


@pytest.fixture(scope="module")
def data():
    return tiny.data().select(["color", "price"])


def shared(run):
    return {p: np.asarray(x) for p, x in partition.flatten(run.params).items() if p.startswith("shared/")}


def test_heads_stay_and_what_is_shared_is_merged(runs, data, tmp_path):
    merged = mtl.transfer.merge(runs)
    assert [t.name for t in merged.tasks] == ["color", "price"]
    for path, leaf in shared(merged).items():
        np.testing.assert_allclose(leaf, (shared(runs[0])[path] + shared(runs[1])[path]) / 2, rtol=1e-6)
    for run, task in zip(runs, ("color", "price"), strict=True):
        tiny.assert_same(merged.params["tasks"][task], run.params["tasks"][task])
    merged.save(tmp_path / "merged")
    loaded = mtl.load_run(tmp_path / "merged")
    assert loaded.config["merged"] == "average" and loaded.config["runs"] == ["run 0 (color)", "run 1 (price)"]
    x = data.test.inputs
    for task, found in loaded.predict(x).items():
        np.testing.assert_array_equal(found, merged.predict(x)[task])


def test_without_a_base_the_runs_seed_says_where_they_started(runs):
    """A run that never moves keeps its first variables: those that the seed gives again, bit for bit."""
    still = alone("color", optimizer="sgd(learning_rate=0.0)", num_steps=5, eval_every=5)
    found = start.base_of(None, runs, list(shared(runs[0])), True)
    tiny.assert_same(found, shared(still))
    merged = mtl.transfer.merge(runs, "task_arithmetic(scale=0.5)")
    for path, leaf in shared(merged).items():
        total = shared(runs[0])[path] + shared(runs[1])[path] - 2 * found[path]
        np.testing.assert_allclose(leaf, found[path] + 0.5 * total, rtol=1e-5, atol=1e-6)


def test_regmean_reads_the_inputs_of_each_runs_layers(runs, data):
    """Both layers against numpy.linalg.lstsq on the labelled rows of each run's task."""
    merged = mtl.transfer.merge(runs, "regmean(keep=1.0)", data=data, rows=1000)
    inputs = {k: [] for k in KERNELS}
    for run, task in zip(runs, ("color", "price"), strict=True):
        x = np.asarray(data.train.inputs)[data.train.masks[task]]
        x = x[: len(x) // 32 * 32].astype(np.float64)  # whole batches
        for kernel in KERNELS:
            inputs[kernel].append(x)
            x = np.maximum(x @ shared(run)[kernel] + shared(run)[kernel.replace("kernel", "bias")], 0)
    for kernel, found in inputs.items():
        # Tasks count alike, whatever their number of rows; the fit is nearest to the mean where units are dead.
        scaled = [x / np.sqrt(len(x)) for x in found]
        mean = np.mean([shared(r)[kernel] for r in runs], 0)
        rest = np.concatenate([x @ (shared(r)[kernel] - mean) for x, r in zip(scaled, runs, strict=True)])
        expected = mean + np.linalg.lstsq(np.concatenate(scaled), rest, rcond=1e-4)[0]
        np.testing.assert_allclose(shared(merged)[kernel], expected, atol=2e-3)
    plus = mtl.transfer.merge(runs, "regmean_plus_plus(keep=1.0)", data=data, rows=1000)
    np.testing.assert_allclose(shared(plus)[KERNELS[0]], shared(merged)[KERNELS[0]], atol=1e-5)
    assert np.abs(shared(plus)[KERNELS[1]] - shared(merged)[KERNELS[1]]).max() > 1e-4


def test_scales_are_chosen_on_validation_and_a_soup_merges_heads(runs, data):
    merged = mtl.transfer.merge(runs, "ties", data=data, scales=(0.0, 1.0))
    assert set(merged.config["scores"]) == {"0", "1"}
    best = max(merged.config["scores"], key=merged.config["scores"].get)
    assert merged.config["merged"] == f"ties(scale={float(best)})"
    tiny.assert_close(shared(merged), shared(mtl.transfer.merge(runs, merged.config["merged"])), rtol=1e-6)
    worse = dataclasses.replace(runs[0], variables=jax.tree.map(lambda x: np.asarray(x) * 0, runs[0].variables),
                                _compiled={})  # fmt: skip
    soup = mtl.transfer.merge([worse, runs[0], runs[0]], "greedy_soup", data=tiny.data().select(["color"]))
    assert soup.config["kept"] == ["run 1 (color)", "run 2 (color)"]
    tiny.assert_close(soup.params, runs[0].params, rtol=1e-6)


def test_healing_starts_from_the_merged_run(runs, data):
    merged = mtl.transfer.merge(runs)
    how = {"num_steps": 10, "batch_size": 16, "steps_per_dispatch": 5, "eval_every": 5, "log_every": 5,
           "mesh": mtl.parallel.make_mesh(1), "progress": False}  # fmt: skip
    still = mtl.transfer.heal(merged, data, optimizer="sgd(learning_rate=0.0)", **how)
    tiny.assert_same(still.params, merged.params)
    healed = mtl.transfer.heal(merged, data, optimizer="adam(learning_rate=0.02)", **how)
    before, after = ([r.evaluate(data.val)[t]["loss"] for t in ("color", "price")] for r in (merged, healed))
    assert sum(after) < sum(before)
    with pytest.raises(ValueError, match="unknown argument of fit 'steps'|fit has no argument 'steps'"):
        mtl.transfer.heal(merged, data, steps=3)


def test_a_data_set_for_each_run_gives_inputs_of_each_tasks_own(runs):
    sets = [tiny.data().select([t]) for t in ("color", "price")]
    merged = mtl.transfer.merge(runs, "regmean", data=sets)
    x = np.asarray(sets[0].test.inputs)
    found = merged.predict(PerTask({"color": x, "price": x[:3]}))
    assert len(found["color"]) == len(x) and len(found["price"]) == 3
    common = mtl.transfer.merge(runs, "regmean", data=tiny.data())
    np.testing.assert_allclose(found["color"], common.predict(x)["color"], rtol=1e-5)
    with pytest.raises(ValueError, match=r"task 'color' is in 2 data sets \(arrays, arrays\); rename one"):
        mtl.transfer.merging.side_by_side([sets[0], sets[0]])


@pytest.fixture(scope="module")
def tuned():
    """(a run, what two tasks made of its trunk)."""
    source = alone("sold", num_steps=5, eval_every=5)
    found = []
    for i, task in enumerate(("color", "price")):
        own = tiny.data().select([task])
        adapted = mtl.transfer.adapt(source, own.tasks)
        found.append(tiny.fit(adapted, own, num_steps=5, eval_every=5, seed=i))
    return source, found


def test_runs_of_a_common_trunk_need_it_as_their_base(tuned, runs):
    source, found = tuned
    merged = mtl.transfer.merge(found, "task_arithmetic(scale=1.0)", base=source)
    path = KERNELS[0]
    expected = sum(shared(r)[path] for r in found) - shared(source)[path]
    np.testing.assert_allclose(shared(merged)[path], expected, rtol=1e-4, atol=1e-6)
    with pytest.raises(ValueError, match="the runs started from a run of .*; give it: base="):
        mtl.transfer.merge(found, "ties")
    with pytest.raises(ValueError, match="the base is not what the runs started from, which was a run of"):
        mtl.transfer.merge(found, "ties", base=runs[0])
    with pytest.raises(ValueError, match=r"run 0 \(color\) started from a run of .* and run 1 \(price\) from scratch"):
        mtl.transfer.merge([found[0], runs[1]])
    mtl.transfer.merge([found[0], runs[1]], same_start=False)


def test_runs_that_cannot_be_merged_are_refused(runs, data, tmp_path):
    other = dataclasses.replace(
        runs[1], identity={**runs[1].identity, "settings": {**runs[1].identity["settings"], "seed": 4}}
    )  # fmt: skip
    with pytest.raises(
        ValueError, match="was initialised with seed 0 and run 1 .* with seed 4; averages of parameters"
    ):
        mtl.transfer.merge([runs[0], other])
    model = tiny.model(runs[1].tasks, encoder="mlp(features=(8, 7))")
    with pytest.raises(ValueError, match=r"is mlp\(features=\(8, 6\)\) and run 1 .* is mlp\(features=\(8, 7\)\)"):
        mtl.transfer.merge([runs[0], dataclasses.replace(runs[1], model=model)])
    joint = dataclasses.replace(runs[1], model=tiny.model(data.tasks), tasks=data.tasks)
    with pytest.raises(ValueError, match=r"task 'color' is in run 0 \(color\) and in run 1 \(color, price\)"):
        mtl.transfer.merge([runs[0], joint])
    wrong = jax.tree.map(np.asarray, runs[1].variables)
    wrong["params"]["shared"]["encoder"]["stage_1"]["dense"]["bias"] = np.zeros(7, np.float32)
    with pytest.raises(ValueError, match=r"stage_1/dense/bias is \(6,\) in run 0 \(color\) and \(7,\) in run 1"):
        mtl.transfer.merge([runs[0], dataclasses.replace(runs[1], variables=wrong)])
    with pytest.raises(ValueError, match="merging method 'regmean' needs data=: it says what enters the layers"):
        mtl.transfer.merge(runs, "regmean")
    with pytest.raises(ValueError, match="unknown merging method 'tie'; did you mean 'ties'"):
        mtl.transfer.merge(runs, "tie")
    with pytest.raises(ValueError, match=r"unknown option of merging method 'ties' 'density'; \(keep, scale\)"):
        mtl.transfer.merge(runs, "ties(density=0.1)")
    with pytest.raises(ValueError, match=r"merging method 'ties\(0.1\)': name its options, keep, scale"):
        methods.options("ties(0.1)")
    with pytest.raises(ValueError, match="merging method 'average' has no scale to choose"):
        mtl.transfer.merge(runs, scales=(1.0,), data=data)
    with pytest.raises(FileNotFoundError, match="holds no run"):
        mtl.transfer.merge([runs[0], tmp_path / "nothing"])
    separate = []
    for run in runs:
        own = tiny.model(run.tasks, "independent")
        variables = tiny.init(own, tiny.batch(4, tiny.data().select([run.tasks[0].name])))
        separate.append(dataclasses.replace(run, model=own, variables=variables))
    with pytest.raises(ValueError, match=r"run 0 \(color\) has no shared parameters to merge"):
        mtl.transfer.merge(separate)


def test_statistics_are_pooled_or_computed_anew():
    sets = [tiny.data().select([t]) for t in ("color", "price")]
    found = [tiny.fit(tiny.model(d.tasks, encoder=tiny.BATCH_NORM), d, num_steps=5, eval_every=5) for d in sets]
    with pytest.warns(UserWarning, match="batch statistics, which do not fit merged parameters"):
        merged = mtl.transfer.merge(found)
    path = "shared/encoder/stage_0/batch_stats/finish/norm"
    old = [partition.flatten(r.variables["state"]) for r in found]
    new = partition.flatten(merged.variables["state"])
    means, variances = ([np.asarray(o[f"{path}/{k}"], np.float64) for o in old] for k in ("mean", "var"))
    np.testing.assert_allclose(new[f"{path}/mean"], np.mean(means, 0), rtol=1e-5)
    expected = np.mean(variances, 0) + ((means[0] - means[1]) / 2) ** 2
    np.testing.assert_allclose(new[f"{path}/var"], expected, rtol=1e-5)
    data = tiny.data().select(["color", "price"])
    again = statistics.refreshed(merged.model, merged.variables, data.train)
    kernel = shared(merged)["shared/encoder/stage_0/dense/kernel"].astype(np.float64)
    before = np.asarray(data.train.inputs, np.float64) @ kernel
    found = partition.flatten(again["state"])
    np.testing.assert_allclose(found[f"{path}/mean"], before.mean(0), atol=0.3 * before.std(0).max())
    np.testing.assert_allclose(found[f"{path}/var"], before.var(0), rtol=0.5)


class Odd(nn.Module):
    """A strided convolution, a remat block, a kernel that is read twice, and a grouped convolution."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(4, (3, 2), strides=(2, 1), padding=((1, 0), (1, 1)), name="conv")(x))
        x = nn.Conv(4, (3, 3), feature_group_count=4, name="depthwise")(x)
        x = x.reshape(len(x), -1)
        x = nn.remat(lambda m, y: nn.Dense(5, name="inside")(y))(self, x)
        twice = nn.Dense(5, name="twice")
        return twice(jnp.tanh(twice(x))) @ self.param("scaled", nn.initializers.ones, (5, 2)).T.T


def test_what_enters_layers_is_read_off_the_program():
    module = Odd()
    x = np.asarray(jax.random.normal(jax.random.key(0), (8, 6, 5, 3)))
    params = jax.device_get(module.init(jax.random.key(1), jnp.asarray(x))["params"])
    leaves = partition.flatten(params)

    def function(leaves, x):
        return module.apply({"params": partition.unflatten(leaves, params)}, x)

    made = layer_inputs.make_grams(function, leaves)
    found = made(leaves, [jnp.asarray(x[:4]), jnp.asarray(x[4:])])
    assert list(found.grams) == ["conv/kernel", "inside/kernel", "twice/kernel"]
    assert found.left == {"depthwise/kernel": "read by conv_general_dilated, not as inputs @ kernel",
                          "scaled": "read by transpose, not as inputs @ kernel"}  # fmt: skip
    # The patches that a strided, padded convolution reads, cut out by hand; as a matrix product they give its output.
    padded = np.pad(x, ((0, 0), (1, 0), (1, 1), (0, 0)))
    patches = np.stack([[padded[:, 2 * i : 2 * i + 3, j : j + 2].reshape(8, -1) for j in range(6)] for i in range(3)])
    patches = patches.reshape(-1, 18)
    np.testing.assert_allclose(found.grams["conv/kernel"], patches.T @ patches / len(patches), atol=1e-4)
    hidden = _after_convolutions(params, x)
    np.testing.assert_allclose(found.grams["inside/kernel"], hidden.T @ hidden / 8, rtol=1e-3, atol=1e-4)
    first = hidden @ params["inside"]["kernel"] + params["inside"]["bias"]
    second = np.tanh(first @ params["twice"]["kernel"] + params["twice"]["bias"])
    expected = (first.T @ first + second.T @ second) / 16
    np.testing.assert_allclose(found.grams["twice/kernel"], expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("groups", [1, 3])
def test_what_enters_this_librarys_convolutions_is_read_too(groups):
    """On a CPU they are matrix products of patches; the Gram matrix is that of flax's convolution."""
    x = jax.random.normal(jax.random.key(0), (4, 5, 6, 3))
    ours = convolution.conv(6 if groups == 1 else 3, (3, 2), strides=2, padding=((1, 0), (1, 1)), groups=groups)
    theirs = nn.Conv(ours.features, (3, 2), strides=2, padding=ours.padding, feature_group_count=groups)
    params = theirs.init(jax.random.key(1), x)["params"]
    both = [layer_inputs.make_grams(lambda leaves, x, m=m: m.apply({"params": leaves}, x), params)(params, [x])
            for m in (ours, theirs)]  # fmt: skip
    assert all(list(f.grams) == (["kernel"] if groups == 1 else []) for f in both)
    assert all(list(f.left) == ([] if groups == 1 else ["kernel"]) for f in both)
    for path, gram in both[1].grams.items():
        np.testing.assert_allclose(both[0].grams[path], gram, rtol=1e-4, atol=1e-5)


def _after_convolutions(params, x):
    class Front(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.relu(nn.Conv(4, (3, 2), strides=(2, 1), padding=((1, 0), (1, 1)), name="conv")(x))
            return nn.Conv(4, (3, 3), feature_group_count=4, name="depthwise")(x).reshape(len(x), -1)

    return np.asarray(Front().apply({"params": {k: params[k] for k in ("conv", "depthwise")}}, x))


def test_stages_are_in_the_order_of_the_computation():
    paths = ["a/stage_0/dense/kernel", "a/stage_0/norm/scale", "a/stage_1/one/kernel", "a/stage_1/two/kernel", "a/e",
             "own/dense/kernel", "own/dense/bias"]  # fmt: skip
    order = ["a/stage_1/one/kernel", "own/dense/kernel", "a/stage_1/two/kernel", "a/stage_0/dense/kernel"]
    assert stages_of(paths, order) == [
        ["a/stage_1/one/kernel", "a/stage_1/two/kernel"], ["own/dense/kernel", "own/dense/bias"],
        ["a/stage_0/dense/kernel", "a/stage_0/norm/scale"],
    ]  # fmt: skip
