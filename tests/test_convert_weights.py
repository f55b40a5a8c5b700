"""The conversion of pickled and HDF5 weights: what it says, what it writes, and that it leaves nothing half done.

torch and h5py are no dependencies: where they are not installed, small stand-ins hold what a file would give.
"""

import sys
import types

import numpy as np
import pytest

from mtl_jax.transfer.sources import open_source
from tests.test_docs import script

convert = script("convert_weights")


class Tensor:
    """As much of torch.Tensor as is asked for."""

    layout, is_quantized = "strided", False

    def __init__(self, values):
        self.values = np.asarray(values)
        self.shape, self.dtype = self.values.shape, self.values.dtype

    def detach(self):
        return self

    contiguous = float = detach

    def is_floating_point(self):
        return self.dtype.kind == "f"

    def isfinite(self):
        return np.isfinite(self.values)

    def numpy(self):
        if self.dtype == np.float16:
            raise TypeError("Got unsupported ScalarType")
        return self.values


@pytest.fixture
def torch(monkeypatch, tmp_path):
    """(content) -> the path of a .pth with it."""

    def holding(content):
        module = types.ModuleType("torch")
        module.Tensor, module.strided = Tensor, "strided"

        def load(path, map_location, weights_only):
            assert map_location == "cpu" and weights_only
            if isinstance(content, Exception):
                raise content
            return content

        module.load = load
        monkeypatch.setitem(sys.modules, "torch", module)
        path = tmp_path / "model.pth"
        path.write_bytes(b"PK")
        return str(path)

    return holding


def refused(*arguments):
    """What the program says when it ends."""
    with pytest.raises(SystemExit) as found:
        convert.main([str(a) for a in arguments])
    return str(found.value)


def test_arguments_that_cannot_be_meant(tmp_path, capsys):
    here, target = tmp_path / "m.pth", tmp_path / "m.npz"
    assert refused(here, target) == f"there is no file {here}"
    here.write_bytes(b"x")
    assert refused(here, tmp_path / "m.pt") == f"{tmp_path / 'm.pt'} must end in .safetensors or .npz"
    assert refused(here, tmp_path / "none" / "m.npz") == f"there is no folder {tmp_path / 'none'} for m.npz"
    target.write_bytes(b"kept")
    assert refused(here, target) == f"{target} is there already" and target.read_bytes() == b"kept"
    other = tmp_path / "m.txt"
    other.write_bytes(b"x")
    assert "m.txt is of no known format; .pth, .pt," in refused(other, tmp_path / "n.npz")
    assert refused(here) == "2" and "the following arguments are required: target" in capsys.readouterr().err


@pytest.mark.parametrize(("name", "package"), [("m.pth", "torch"), ("m.PT", "torch"), ("m.h5", "h5py")])
def test_what_is_not_installed_is_named(name, package, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)  # an import of it fails
    path = tmp_path / name
    path.write_bytes(b"x")
    assert refused(path, tmp_path / "m.npz") == f"{path} needs {package}: pip install {package}"


def test_tensors_are_taken_out_of_their_wrapper(torch, tmp_path, capsys):
    """The wrapper comes first even where a tensor lies beside it."""
    kernel = np.arange(6, dtype=np.float32).reshape(2, 3)
    inner = {"conv.weight": Tensor(kernel), "file": Tensor(np.int64(7)), "arch": "resnet"}
    target = tmp_path / "m.npz"
    convert.main([torch({"epoch": Tensor(3), "state_dict": inner}), str(target)])
    said = capsys.readouterr()
    assert "taking 'state_dict' of epoch, state_dict" in said.out and not said.err
    assert "left out, since they are no tensors: arch" in said.out
    size = target.stat().st_size
    assert f"{target}: 2 arrays (1 float32, 1 int64), 7 numbers, {size:,} bytes" in said.out
    with np.load(target, allow_pickle=False) as stored:
        assert set(stored.files) == {"conv.weight", "file"} and stored["file"] == 7 and stored["file"].shape == ()
        np.testing.assert_array_equal(stored["conv.weight"], kernel)
    source = open_source(target)
    assert {n: tuple(s.shape) for n, s in source.shapes.items()} == {"conv.weight": (2, 3), "file": ()}


def test_what_is_not_finite_is_named(torch, tmp_path, capsys):
    content = {"a": Tensor(np.array([1, np.nan, np.inf], np.float32)), "b": Tensor(np.zeros(2, np.float32))}
    convert.main([torch(content), str(tmp_path / "m.npz")])
    assert capsys.readouterr().err == "warning: nan or infinity, written as they are: a (2 of 3)\n"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"epoch": 3, "lr": 0.1}, "holds no tensors by name; its entries are epoch, lr"),
        ([Tensor(1)], "holds a list in place of tensors by name"),
        ({0: Tensor(1.0), "0": Tensor(2.0)}, "has two tensors with the name '0'"),
        ({}, "holds no weights"),
        ({"h": Tensor(np.zeros(2, np.float16))}, "NumPy has no such dtype (h: Got unsupported ScalarType)"),
        (RuntimeError("Weights only load failed. More.\nAnd more"), "cannot be read as weights alone: Weights only"),
    ],
)
def test_what_cannot_be_converted_leaves_nothing(content, said, torch, tmp_path):
    path = torch(content)
    assert said in refused(path, tmp_path / "m.npz")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.pth"]


def test_a_sparse_tensor_is_refused(torch, tmp_path):
    tensor = Tensor(np.ones(2, np.float32))
    tensor.layout = "sparse_coo"
    assert "w is a sparse or quantized tensor; make it dense" in refused(torch({"w": tensor}), tmp_path / "m.npz")


class Group(dict):
    """As much of an HDF5 file and its groups as is asked for."""

    def __init__(self, content, **attrs):
        super().__init__(content)
        self.attrs = attrs

    def __enter__(self):
        return self

    def __exit__(self, *error):
        return None


def keras(monkeypatch, tmp_path, root):
    """The path of an .h5 that holds a group."""
    module = types.ModuleType("h5py")
    module.File = lambda path, mode: root
    monkeypatch.setitem(sys.modules, "h5py", module)
    path = tmp_path / "m.h5"
    path.write_bytes(b"x")
    return path


def test_keras_names_become_layer_and_array(monkeypatch, tmp_path):
    kernel = np.arange(4, dtype=np.float32).reshape(2, 2)
    layer = Group(
        {"dense/kernel:0": kernel, "dense/bias:0": kernel[0]}, weight_names=[b"dense/kernel:0", "dense/bias:0"]
    )
    root = Group({"fc": layer}, layer_names=[b"fc"])
    path = keras(monkeypatch, tmp_path, Group({"model_weights": root}))
    convert.main([str(path), str(tmp_path / "m.safetensors")])
    source = open_source(tmp_path / "m.safetensors")
    assert {n: tuple(s.shape) for n, s in source.shapes.items()} == {"fc/kernel": (2, 2), "fc/bias": (2,)}
    assert "does not name its layers (Keras 3 numbers them)" in refused(
        keras(monkeypatch, tmp_path, Group({})), tmp_path / "n.npz"
    )
    lacking = Group({}, layer_names=["fc"])
    assert "m.h5 cannot be read: 'fc'" in refused(keras(monkeypatch, tmp_path, lacking), tmp_path / "n.npz")
    twice = Group(
        {"fc": Group({"a/k:0": kernel, "b/k:0": kernel}, weight_names=["a/k:0", "b/k:0"])}, layer_names=["fc"]
    )
    assert "layer 'fc' has two arrays 'k'" in refused(keras(monkeypatch, tmp_path, twice), tmp_path / "n.npz")
    words = Group({"fc": Group({"k": np.array(["x"], object)}, weight_names=["k"])}, layer_names=["fc"])
    for name in ("n.npz", "n.safetensors"):
        said = refused(keras(monkeypatch, tmp_path, words), tmp_path / name)
        assert "fc/k" in said and not (tmp_path / name).exists()


def test_a_damaged_h5_is_refused(tmp_path):
    pytest.importorskip("h5py")
    path = tmp_path / "m.h5"
    path.write_bytes(b"no HDF5")
    assert "m.h5 cannot be read" in refused(path, tmp_path / "m.npz")
