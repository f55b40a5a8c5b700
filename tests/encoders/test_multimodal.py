"""Several modalities: what is absent has no part in features and gradients; fusions by hand; freezing one encoder."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mtl_jax as mtl
from mtl_jax.encoders import base
from tests import tiny
from tests.encoders.drawing import features, run, variables

ENCODERS = {"image": "cnn(features=(3,), window=4, pool={!r})", "table": "mlp(features=(4,))"}
PRESENT = np.array([[1, 1], [1, 0], [0, 1], [0, 0]], bool)  # rows x (image, table)


def text(fusion, pool="flatten", **arguments):
    made = {n: t.format(pool) for n, t in ENCODERS.items()}
    return mtl.encoders.multimodal(made, fusion, width=6, heads=2, **arguments)


def inputs(hidden=np.nan):
    """Four rows with every pattern of presence; what is absent holds `hidden`."""
    draw = np.random.default_rng(0)
    x = {"image": draw.normal(size=(4, 4, 4, 2)), "table": draw.normal(size=(4, 3))}
    for i, name in enumerate(("image", "table")):
        x[name][~PRESENT[:, i]] = hidden
        x[f"{name}_present"] = PRESENT[:, i]
    return jax.tree.map(lambda v: jnp.asarray(v, jnp.float32 if v.dtype != bool else bool), x)


@pytest.mark.parametrize("fusion", ["concat", "gate", "attention"])
def test_what_is_absent_has_no_part(fusion):
    """Whatever it holds, nan too; its encoder's gradient is that of the rows that have it; nothing at all gives zeros;
    a row that has everything is as without masks.
    """
    encoder = text(fusion, pool="none" if fusion == "attention" else "flatten")
    params, state = variables(encoder, inputs())

    @jax.jit
    def both(x):
        def loss(params, rows):
            y = features(encoder, params, state, x, train=True)[0]
            return (jnp.where(rows[:, None], y, 0) ** 2).sum(), y

        gradient = jax.grad(loss, has_aux=True)
        (every, y), (without_image, _) = (
            gradient(params, jnp.asarray(rows)) for rows in (PRESENT.any(1), ~PRESENT[:, 0])
        )
        return y, every["stage_0"], without_image["stage_0"]

    y, every, without_image = both(inputs())
    tiny.assert_same((y, every), both(inputs(hidden=7.0))[:2])
    assert np.isfinite(y).all() and not y[3].any() and np.abs(y[:3]).max(1).min() > 1e-3
    assert (
        all(np.isfinite(g).all() for g in jax.tree.leaves(every))
        and np.abs(every["table"]["stage_0"]["dense"]["kernel"]).max() > 0
    )
    assert not any(np.asarray(g).any() for g in jax.tree.leaves(without_image["image"]))
    assert np.asarray(without_image["table"]["stage_0"]["dense"]["kernel"]).any()
    whole = {n: v for n, v in inputs(hidden=0).items() if n in ENCODERS}
    np.testing.assert_allclose(features(encoder, params, state, whole)[0][0], y[0], rtol=1e-5, atol=1e-6)


def test_fusions_by_hand():
    """From the encoders' own features, run by themselves."""
    x = inputs(hidden=0)
    for fusion in ("concat", "gate", "attention"):
        encoder = text(fusion)
        params, state = variables(encoder, x)
        y, p = np.asarray(features(encoder, params, state, x)[0]), params["stage_0"]
        own = {n: features(mtl.encoders.build(t.format("flatten")), p[n], {}, x[n])[0] for n, t in ENCODERS.items()}
        own = {n: np.asarray(v) for n, v in own.items()}
        fuse = p["fuse"] if fusion != "concat" else None

        def dense(x, p):
            return x @ p["kernel"] + p["bias"]

        for row, (image, table) in enumerate(PRESENT):
            there = [n for n, on in (("image", image), ("table", table)) if on]
            if fusion == "concat":
                expected = np.concatenate([own[n][row] * (n in there) for n in own])
            elif not there:
                expected = np.zeros(6)
            elif fusion == "gate":
                logits = np.exp([dense(own[n][row], fuse[f"{n}_gate"])[0] for n in there])
                mapped = [dense(own[n][row], fuse[f"{n}_map"]) for n in there]
                expected = (logits / logits.sum()) @ np.array(mapped)
            else:
                tokens = np.array([dense(own[n][row], fuse[f"{n}_map"]) + fuse[f"{n}_kind"] for n in there])
                attend, read = fuse["attention"], []
                query, key, value = (dense(v, attend[n]) for v, n in
                                     ((fuse["query"], "query"), (tokens, "key"), (tokens, "value")))  # fmt: skip
                for part in (slice(0, 3), slice(3, 6)):
                    weights = np.exp(key[:, part] @ query[part] / np.sqrt(3))
                    read.append(weights / weights.sum() @ value[:, part])
                expected = dense(np.concatenate(read), attend["out"])
            np.testing.assert_allclose(y[row], expected, rtol=1e-4, atol=1e-5, err_msg=f"{fusion}, row {row}")


def test_one_encoder_is_frozen_by_its_path():
    """Its batch statistics stay, it drops nothing, and the other encoder's go on."""
    encoder = mtl.encoders.multimodal(
        {"a": "mlp(features=(8,), norm='batch', dropout=0.5)", "b": "mlp(features=(3,), norm='batch')"}
    )
    x = {"a": jnp.asarray(np.random.default_rng(0).normal(size=(4, 3)), jnp.float32)}
    x["b"] = x["a"]
    params, state = variables(encoder, x)
    named, key = base.layers(encoder), jax.random.key(0)

    def outputs(train):
        return base.apply_layers(named, params, state, x, train=train, key=key, prefix="shared/encoder")

    still, (y, new), (_, moved) = outputs(False)[0], outputs(lambda path: "/a" not in path), outputs(True)
    np.testing.assert_array_equal(y[:, :8], still[:, :8])
    assert (y[:, 8:] != still[:, 8:]).any()
    states = [s["stage_0"]["encoders"] for s in (state, new, moved)]
    tiny.assert_same(states[1]["a"], states[0]["a"])
    for name, changed in (("b", states[1]), ("a", states[2])):
        assert (np.asarray(changed[name]["stage_0"]["batch_stats"]["finish"]["norm"]["mean"]) != 0).all()


def test_it_goes_through_a_run(tmp_path):
    """From text; modalities missing here and there; trained, saved, loaded; presence matters to what it learns."""
    draw = np.random.default_rng(0)
    x = {"a": draw.normal(size=(200, 3)), "b": draw.normal(size=(200, 2)), "b_present": draw.random(200) < 0.7}
    target = x["a"][:, 0] + 3 * np.where(x["b_present"], x["b"][:, 0], 0)
    data = mtl.data.from_arrays(x, {"sum": target, "sign": (x["a"][:, 1] > 0).astype(float)})
    encoder = mtl.encoders.build(
        "multimodal(encoders={'a': 'mlp(features=(8,))', 'b': 'mlp(features=(8,))'}, features=(8,))"
    )
    fitted = tiny.fit(mtl.sharing.hard(encoder, data.tasks), data, num_steps=200)
    assert mtl.evaluate(fitted, data.test)["sum"]["r2"] > 0.8
    fitted.save(tmp_path / "run")
    loaded = mtl.load_run(tmp_path / "run").predict(data.test.inputs)
    tiny.assert_same(loaded, fitted.predict(data.test.inputs))


def test_errors():
    for arguments, message in (
        ("{}", "multimodal: encoders={} must be a dict"),
        ("{'a': 'mpl'}", "unknown encoder 'mpl'; did you mean 'mlp'"),
        ("{'a_present': 'mlp'}", "multimodal: an input cannot be called 'a_present'"),
        ("{'a': 'mlp'}, 'sum'", r"unknown fusion of multimodal 'sum'; .*\(concat, gate, attention\)"),
        ("{'a': 'mlp'}, 'attention', 6", "multimodal: width=6 must be a multiple of heads=4"),
    ):
        with pytest.raises(ValueError, match=message):
            mtl.encoders.build(f"multimodal({arguments})")
    two, ones = mtl.encoders.multimodal({"a": "mlp", "b": "mlp"}), jnp.ones((2, 3))
    for x, message in (
        (
            ones,
            r"multimodal got float32 \(2, 3\); it takes a dict of \['a', 'b'\], and of \['a_present', 'b_present'\]",
        ),
        ({"a": ones}, r"multimodal got \['a'\]; it takes a dict of \['a', 'b'\]"),
        ({"a": ones, "b": ones, "c_present": ones}, r"multimodal got \['a', 'b', 'c_present'\]; it takes"),
        (
            {"a": ones, "b": ones, "a_present": ones},
            r"multimodal: 'a_present' is float32 \(2, 3\); it must be bool",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            run(two, x)
    images = mtl.encoders.multimodal({"a": "cnn(features=(2,), pool='none')"})
    with pytest.raises(
        ValueError, match=r"encoder 'a' gives float32 \(2, 2, 2, 2\), but fusion 'concat' takes vectors"
    ):
        run(images, {"a": jnp.ones((2, 4, 4, 1))})
