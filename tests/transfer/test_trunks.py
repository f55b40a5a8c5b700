"""Weights of other frameworks go through the doors that a run goes through: methods, adapters, ranking, bytes."""

import dataclasses
import json

import numpy as np
import pytest

import mtl_jax as mtl
from mtl_jax import transfer
from mtl_jax.transfer import trunks
from tests.transfer.test_importing import imported


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("vit")


@pytest.fixture(scope="module")
def vit(folder):
    return imported("hugging_face_vit", folder)[0]


@pytest.fixture(scope="module")
def data():
    x = np.random.default_rng(0).integers(0, 255, (48, 16, 16, 3)).astype(np.uint8)
    return mtl.data.from_arrays(x, {"bright": (x.mean((1, 2, 3)) > 127).astype(int), "red": x[..., 0].mean((1, 2))},
                                kinds={"bright": "binary"}, val=0.25, test=0.25)  # fmt: skip


@pytest.fixture(scope="module")
def tuned(folder, vit, data):
    return transfer.fine_tune(folder, data, method="lora(rank=2)", num_steps=4, batch_size=8, steps_per_dispatch=2)


def test_bytes_are_scaled_as_the_model_was_trained_on_them(vit, data):
    """By its own mean and deviation, as `prepare` does on the host, in every door."""
    x = data.test.inputs
    mean, std = (np.asarray(v, np.float32) for v in (vit.prepared.mean, vit.prepared.std))
    scaled = (x.astype(np.float32) - mean) / std
    np.testing.assert_allclose(vit.features(x), vit.features(scaled), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(vit.outputs(x), vit.outputs(scaled), rtol=1e-4, atol=1e-4)
    seen = transfer.ranking.candidates.see("vit", vit, x)
    np.testing.assert_allclose(seen.features[""], vit.features(scaled), rtol=1e-4, atol=1e-4)
    logits = vit.outputs(scaled)
    np.testing.assert_allclose(
        seen.probabilities["head"], np.exp(logits) / np.exp(logits).sum(-1, keepdims=True), atol=1e-4
    )
    spec = vit.adapt(data.tasks, inputs=data, augment={"flip": True}).model.encoder.spec
    assert spec.startswith('augmented(encoder="vit(') and "flip=True" in spec and "mean=" in spec
    with pytest.raises(
        ValueError, match=r"augment changes images of bytes \(uint8\), and the inputs are images of flo"
    ):
        vit.adapt(data.tasks, inputs=scaled, augment={"flip": True})


def test_bytes_are_not_read_as_the_floats_of_training(folder, vit, data, tmp_path):
    """A run on standardised pixels takes no bytes for them, when it was loaded either; small whole numbers are read."""
    x = data.test.inputs
    splits = {k: getattr(data, k)._replace(inputs=vit.prepare(getattr(data, k).inputs)) for k in ("train", "val")}
    floats = dataclasses.replace(data, **splits, test=None)
    run = transfer.fine_tune(vit, floats, method="probe(solver='ridge')")
    run.save(tmp_path / "run")
    for each in (run, mtl.load_run(tmp_path / "run")):
        with pytest.raises(
            ValueError, match=r"inputs are images of bytes \(uint8\), and the model was trained on .*32"
        ):
            each.predict(x)
        with pytest.raises(ValueError, match=r"inputs of train are images of bytes \(uint8\)"):
            transfer.fine_tune(each, data, method="probe(solver='ridge')")
    loaded, prepared = mtl.load_run(tmp_path / "run"), vit.prepare(x)
    np.testing.assert_allclose(loaded.predict(prepared)["red"], run.predict(prepared)["red"], rtol=1e-5)
    assert loaded.predict(x.astype(np.float32))["red"].shape == (len(x),)  # who says so has it


def test_a_method_acts_on_imported_weights(vit, data, tuned):
    """The trunk stays what the file holds, to the bit; what is added merges back."""
    kept = vit.variables["params"]["stage_1"]["attention"]["query"]["kernel"]
    np.testing.assert_array_equal(tuned.params["shared"]["encoder"]["stage_1"]["attention"]["query"]["kernel"], kept)
    assert all("adapter" in p or p.startswith("tasks/") for p in tuned.trainable)
    merged, x = transfer.merge_adapter(tuned), data.test.inputs
    for task, found in tuned.predict(x).items():
        np.testing.assert_allclose(merged.predict(x)[task], found, rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match="'ewc' holds on to the tasks of a run of ours, and the weights come from el"):
        vit.adapt(data.tasks, method="ewc")
    with pytest.raises(ValueError, match=r"lora\(paths='nothing'\): rule 'nothing' hits no matrix"):
        vit.adapt(data.tasks, inputs=data, method="lora(paths='nothing')")


def test_an_adapter_goes_back_on_the_weights(vit, data, tuned, tmp_path):
    """The file has neither trunk nor tokens of it; it knows how the inputs were read."""
    x = data.test.inputs
    transfer.save_adapter(tuned, tmp_path / "a.npz")
    with np.load(tmp_path / "a.npz") as held:
        assert not [n for n in held.files if "shared/encoder" in n and "adapter" not in n]
    back = transfer.load_adapter(vit, tmp_path / "a.npz")
    for task, found in tuned.predict(x).items():
        np.testing.assert_array_equal(back.predict(x)[task], found)
    bank = transfer.Bank(vit, {"a": tmp_path / "a.npz", "b": tuned})
    mixed = bank.predict(x[:4], ["a", "b", "a", "b"])
    np.testing.assert_allclose(mixed["a"]["red"], tuned.predict(x[:4])["red"][::2], rtol=1e-4, atol=1e-4)


def test_what_is_no_trunk_is_refused(folder, vit, data, tmp_path):
    assert trunks.open_trunk(vit) is vit
    with pytest.raises(FileNotFoundError, match="there is no .*nowhere: give a run's folder, or a pretrained model's"):
        trunks.open_trunk(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"holds neither a run \(data.json\) nor weights"):
        trunks.open_trunk(tmp_path)
    with pytest.raises(ValueError, match="source.* must be a run, what mtl.transfer.from_pretrained returned"):
        trunks.open_trunk(3)
    with pytest.raises(ValueError, match="load is given, and the source is a pretrained model"):
        trunks.adapted(vit, data, load=(("shared/.*", True),))
    assert json.loads((folder / "config.json").read_text())  # a folder of theirs has a config too, and is no run's
