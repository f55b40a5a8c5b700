"""Where parts of transfer meet others: nothing is left out without a word."""

import flax.linen as nn
import jax
import numpy as np
import pytest

import mtl_jax as mtl
from mtl_jax import encoders, partition, sharing, transfer
from mtl_jax.training.identity import shared_start
from mtl_jax.transfer.ranking import candidates


def rows(seed, *names):
    x = np.random.default_rng(seed).normal(size=(64, 5)).astype(np.float32)
    return mtl.data.from_arrays(x, {t: x[:, i] for i, t in enumerate(names)}, val=0.25, test=0.25)


def images(seed, *names):
    x = np.random.default_rng(seed).integers(0, 255, (64, 8, 8, 1)).astype(np.uint8)
    return mtl.data.from_arrays(x, {t: x.mean((1, 2, 3)) * (i + 1) for i, t in enumerate(names)}, val=0.25, test=0.25)


@pytest.fixture(scope="module")
def run():
    data = rows(0, "a", "b")
    return mtl.fit(sharing.hard("mlp(features=(8, 8))", data.tasks), data, num_steps=5)


@pytest.fixture(scope="module")
def seen():
    data = images(0, "a", "b")
    encoder = encoders.augmented("cnn(features=(4,))", shift=3, flip=True)
    return mtl.fit(sharing.hard(encoder, data.tasks), data, num_steps=5)


@pytest.mark.parametrize("change", [{"freeze": "shared/adapter/.*"}, {"optimizer": None}])
def test_a_change_would_drop_the_methods_own(run, change):
    data = rows(1, "c")
    job = mtl.training.Trainer(
        transfer.adapt(run, data.tasks, method="lora(rank=2)"), data, num_steps=10, optimizer="sgd(learning_rate=0.1)"
    )
    with pytest.raises(ValueError, match=f"{next(iter(change))}: the model was adapted by method 'lora'"):
        job.change(**change)


def test_what_is_frozen_is_said_once(run):
    data = rows(1, "c")
    adapted = transfer.adapt(run, data.tasks, freeze="shared/.*")
    with pytest.raises(ValueError, match="adapt was given freeze='shared"):
        mtl.fit(adapted, data, num_steps=5, freeze="tasks/c/head/out/bias")


def test_rows_of_adapters_that_trained_biases_too(run, tmp_path):
    """Mixed rows are those of each adapter alone; and a file that was loaded is saved whole."""
    tuned = {}
    for i, name in enumerate("cd"):
        data = rows(1 + i, name)
        adapted = transfer.adapt(run, data.tasks, method="lora(rank=2)", freeze=(("shared/encoder/.*bias", True),))
        tuned[name] = transfer.fine_tune(adapted, data, num_steps=40, learning_rate=0.05)
    bank, x = transfer.Bank(run, tuned), rows(1, "c").test.inputs
    assert bank.one_by_one() is None
    mixed = bank.predict(x, ["d"] * len(x))["d"]["d"]
    np.testing.assert_allclose(mixed, tuned["d"].predict(x)["d"], rtol=1e-5, atol=1e-6)
    transfer.save_adapter(tuned["d"], tmp_path / "a.npz")
    transfer.save_adapter(transfer.load_adapter(run, tmp_path / "a.npz"), tmp_path / "b.npz")
    again = transfer.load_adapter(run, tmp_path / "b.npz")
    np.testing.assert_array_equal(again.predict(x)["d"], bank.use("d").predict(x)["d"])


def test_images_that_change_are_not_computed_once(seen):
    data = images(1, "c")
    with pytest.raises(ValueError, match="the encoder changes its inputs while it trains"):
        transfer.fine_tune(seen, data, method="probe", num_steps=5, cache=True)


def test_images_that_only_become_numbers_are_computed_once():
    data = images(0, "a")
    encoder = encoders.augmented("cnn(features=(4,))", mean=0.5, std=0.25)
    still = mtl.fit(sharing.hard(encoder, data.tasks), data, num_steps=2)
    new = images(1, "c")
    found = [transfer.fine_tune(still, new, method="probe", num_steps=5, cache=c) for c in (True, False)]
    x = new.test.inputs
    np.testing.assert_allclose(*(r.predict(x)["c"] for r in found), rtol=1e-4)


def test_old_and_new_features_are_of_one_image(seen):
    data = images(1, "c")
    adapted = transfer.adapt(seen, data.tasks, method="delta_features(weight=1.0)")
    batch = mtl.Batch(data.train.inputs[:8], {}, {})
    variables = adapted.model.init(jax.random.key(0), batch)
    variables = {k: partition.unflatten(adapted.variables[k], variables[k]) for k in variables}
    losses = adapted.model.encode(variables, batch, train=True, rng=jax.random.key(1))[2]["losses"]
    assert abs(sum(float(x) for x in losses.values())) < 1e-6


def test_candidates_see_prepared_images(seen):
    encoder = seen.model.encoder
    x = images(1, "c").test.inputs
    trunk = {"params": seen.params["shared"]["encoder"], "state": {}}
    alone, _ = candidates.of_encoder(encoder, trunk, x, 64)
    whole, _ = candidates.of_run(seen, x, 64)
    np.testing.assert_allclose(alone[""], whole[""], rtol=1e-5, atol=1e-6)


def test_multimodal_would_leave_augmentation_out():
    with pytest.raises(ValueError, match="multimodal: encoder 'i' is .*around a whole encoder only"):
        encoders.multimodal(
            encoders={"i": "augmented(encoder='cnn(features=(4,))', shift=3)", "v": "mlp(features=(4,))"}
        )


class Net(nn.Module):
    act: str = "relu"

    @nn.compact
    def __call__(self, x):
        return getattr(nn, self.act)(nn.Dense(8)(x))


def test_modules_that_differ_are_no_one_model():
    data = rows(0, "a", "b")
    runs = []
    for name, act in (("a", "relu"), ("b", "tanh")):
        own = data.select([name])
        runs.append(mtl.fit(sharing.hard(encoders.from_module(Net(act)), own.tasks), own, num_steps=5))
    with pytest.raises(ValueError, match="must be of one architecture"):
        transfer.merge(runs)
    with pytest.raises(ValueError, match="of different models"):
        transfer.join(*runs)


def test_adapters_are_not_averaged_part_by_part(run):
    data = rows(0, "c", "d")
    runs = [transfer.fine_tune(run, data.select([t]), method="lora(rank=2)", num_steps=5) for t in ("c", "d")]
    with pytest.raises(ValueError, match=r"merge_adapter\(run\) makes it a plain run"):
        transfer.merge(runs)


def test_a_probe_by_features_started_from_its_trunk(run):
    """Digests of the start say which runs may be merged."""
    data = rows(1, "c")
    probed = transfer.fine_tune(run, data, method="probe", num_steps=5)
    solved = transfer.fine_tune(run, data, method="probe(solver='ridge')", num_steps=5)
    expected = shared_start(transfer.adapt(run, data.tasks).variables["params"])
    assert probed.identity["shared start"] == solved.identity["shared start"] == expected
