"""Sources of parameters: what other writers wrote is read, and damaged or lying files are refused in words."""

import json
import pathlib

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from mtl_jax.transfer.sources import open_source
from tests.transfer.test_importing import write_safetensors

ARRAYS = {"b/kernel": np.arange(6, dtype=np.float32).reshape(2, 3), "a.bias": np.ones(4, np.float32)}


def header(entries, values=b""):
    """A safetensors file by hand."""
    text = json.dumps(entries).encode() if not isinstance(entries, bytes) else entries
    return len(text).to_bytes(8, "little") + text + values


def entry(dtype="F32", shape=(2,), at=(0, 8)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(at)}


def test_safetensors_of_the_package_are_read(tmp_path):
    """Every dtype, empty and scalar tensors, metadata: the package that defines the format wrote them."""
    numpy = pytest.importorskip("safetensors.numpy")
    draw = np.random.default_rng(0)
    types = (np.float64, np.float32, np.float16, ml_dtypes.bfloat16, np.int64, np.int8, np.uint8, np.bool_)
    given = {f"x{i}": (10 * draw.normal(size=(3, i + 1))).astype(t) for i, t in enumerate(types)}
    given |= {"empty": np.zeros((0, 3), np.float32), "scalar": np.full((), 3, np.float32)}
    numpy.save_file(given, tmp_path / "m.safetensors", {"format": "pt"})
    source = open_source(tmp_path / "m.safetensors")
    assert set(source.shapes) == set(given)
    for name, value in source.read(list(given)):
        assert value.dtype == given[name].dtype == source.shapes[name].dtype
        np.testing.assert_array_equal(value, given[name])


def test_only_what_is_asked_for_is_read(tmp_path):
    """The bytes of another tensor are gone, and nobody notices."""
    path = tmp_path / "m.safetensors"
    write_safetensors(path, ARRAYS)
    source = open_source(path)
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - 16)  # of a.bias, the last
    assert [n for n, _ in source.read(["b/kernel"])] == ["b/kernel"]
    with pytest.raises(ValueError, match="tensor 'a.bias' is cut; the file was changed"):
        list(source.read(["a.bias"]))


@pytest.mark.parametrize(
    "content, message",
    [
        (b"1234", "is no safetensors file: it is 4 bytes long"),
        (header({"x": entry()}, b"1234567"), "tensor 'x' ends at byte .*, and the file at .*: it is cut"),
        (header({"x": entry()}, b"123456789"), "1 bytes at its end are of no tensor"),
        ((10**12).to_bytes(8, "little") + b"{}" * 9, "its header is to be 1,000,000,000,000 bytes long"),
        (header(b'{"x": '), "its header is no valid JSON"),
        (header(b'{"x": {}, "x": {}}'), "'x' is there twice"),
        (header(b"[" * 5000), "its header is no valid JSON"),
        (header([]), "a list in place of an object"),
        (header({"x": entry("F4")}, b"12345678"), "tensor 'x' has the dtype 'F4', which is not known; F64, F32"),
        (header({"x": entry(shape=(3,))}, b"12345678"), r"damaged: F32 \(3,\) is 12 bytes, and its offsets 0..8"),
        (header({"x": entry(shape=(-2,))}, b"12345678"), r"'x' is damaged: shape \[-2\]"),
        (header({"x": entry(shape=(True, 2))}, b"12345678"), "'x' is damaged: shape"),
        (header({"x": entry(shape=(2**62, 4))}, b"12345678"), "'x' is damaged: shape"),
        (header({"x": entry(), "y": entry(at=(4, 12))}, b"0" * 12), "tensor 'y' overlaps 'x' by 4 bytes"),
        (header({"x": entry(), "y": entry(at=(12, 20))}, b"0" * 20), "4 bytes before tensor 'y' are of no tensor"),
        (header({"x": entry(at=(8, 0))}, b"12345678"), "'x' is damaged"),
        (header({"x": {"dtype": "F32"}}), "'x' is damaged: it has no field 'shape'"),
    ],
)  # fmt: skip
def test_damaged_safetensors_are_refused(content, message, tmp_path):
    (tmp_path / "m.safetensors").write_bytes(content)
    with pytest.raises(ValueError, match=message) as error:
        open_source(tmp_path / "m.safetensors")
    assert "m.safetensors" in str(error.value)


def test_several_files_by_their_index(tmp_path):
    write_safetensors(tmp_path / "one.safetensors", {"b/kernel": ARRAYS["b/kernel"]})
    write_safetensors(tmp_path / "two.safetensors", {"a.bias": ARRAYS["a.bias"]})
    index = tmp_path / "model.safetensors.index.json"

    def names(**files):
        index.write_text(json.dumps({"weight_map": files}))
        return open_source(tmp_path)

    source = names(**{"b/kernel": "one.safetensors", "a.bias": "two.safetensors"})
    found = dict(source.read(["a.bias", "b/kernel"]))
    assert all((found[n] == ARRAYS[n]).all() for n in ARRAYS)
    with pytest.raises(FileNotFoundError, match="there is no .*three.safetensors, in which 'c' is to lie"):
        names(c="three.safetensors")
    with pytest.raises(ValueError, match="there is no tensor 'c' in one.safetensors"):
        names(c="one.safetensors")
    with pytest.raises(ValueError, match="must be a file of the same folder"):
        names(c="../one.safetensors")


def test_npz_is_read_and_damaged_ones_are_refused(tmp_path):
    path = tmp_path / "m.npz"
    np.savez(path, **ARRAYS)
    source = open_source(path)
    assert {n: s.shape for n, s in source.shapes.items()} == {n: x.shape for n, x in ARRAYS.items()}
    np.testing.assert_array_equal(dict(source.read(["b/kernel"]))["b/kernel"], ARRAYS["b/kernel"])
    whole = path.read_bytes()
    at = whole.index(np.float32(5).tobytes())
    path.write_bytes(whole[:at] + b"\0\0\0\1" + whole[at + 4 :])
    with pytest.raises(ValueError, match="m.npz.*b/kernel"):
        list(open_source(path).read(["b/kernel"]))
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="m.npz is cut, damaged or no npz archive"):
        open_source(path)
    np.savez(path, x=np.array([{}, []], object))
    with pytest.raises(ValueError, match="array 'x' holds object, no numbers"):
        open_source(path)


def test_what_may_run_code_is_not_read(tmp_path):
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x02")
    for path in (tmp_path, tmp_path / "pytorch_model.bin"):
        with pytest.raises(ValueError, match=r"since it may run code; scripts/convert_weights.py turns it into"):
            open_source(path)


def test_places_that_hold_nothing(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no .*nowhere"):
        open_source(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="holds nothing to load parameters from"):
        open_source(tmp_path)
    (tmp_path / "m.txt").write_text("")
    with pytest.raises(ValueError, match="m.txt is no file that parameters can be read from"):
        open_source(tmp_path / "m.txt")
    with pytest.raises(ValueError, match="the source of parameters is 3; it must be a folder of a run"):
        open_source(3)
    for name in ("one", "two"):
        write_safetensors(tmp_path / f"{name}.safetensors", ARRAYS)
    with pytest.raises(ValueError, match="holds several models: one.safetensors, two.safetensors; name one"):
        open_source(tmp_path)


@pytest.fixture(scope="module")
def foreign_checkpoint(tmp_path_factory):
    """Of Orbax's own functions: nested, with a list."""
    from orbax.checkpoint import v1 as ocp

    folder = tmp_path_factory.mktemp("orbax") / "saved"
    ocp.save(folder, {"params": {"a": {"kernel": jnp.ones((2, 3))}, "b": jnp.arange(4.0)}, "rest": [jnp.ones(2)] * 2})
    return folder


def test_orbax_checkpoints_of_other_programs(foreign_checkpoint):
    source = open_source(foreign_checkpoint)
    assert {n: s.shape for n, s in source.shapes.items()} == {
        "params/a/kernel": (2, 3), "params/b": (4,), "rest/0": (2,), "rest/1": (2,)
    }  # fmt: skip
    found = dict(source.read(["params/b", "rest/1"]))
    assert set(found) == {"params/b", "rest/1"}
    np.testing.assert_array_equal(found["params/b"], np.arange(4.0))


def test_a_damaged_orbax_checkpoint_is_named(foreign_checkpoint, tmp_path):
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(foreign_checkpoint, copy)
    for path in pathlib.Path(copy).rglob("*"):
        if path.is_file() and path.name not in ("_CHECKPOINT_METADATA", "orbax.checkpoint", "commit_success.txt"):
            path.write_bytes(path.read_bytes()[:7])
    with pytest.raises(ValueError, match="checkpoint .*copy cannot be read|is damaged"):
        list(open_source(copy).read(["params/b"]))
