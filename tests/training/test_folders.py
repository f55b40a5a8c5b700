"""Hostile folders: whatever befalls the files of a run, it is loaded as it was, or one line names the file."""

import json
import os
import pathlib
import shutil
import subprocess
import sys

import pytest

import mtl_jax as mtl
from mtl_jax import checkpoint, files
from mtl_jax.training import lock, records
from tests import tiny


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """(folder, run) of 20 steps with checkpoints at 10 and 20."""
    folder = tmp_path_factory.mktemp("folders") / "run"
    return folder, fit(folder)


@pytest.fixture
def copy(whole, tmp_path):
    return shutil.copytree(whole[0], tmp_path / "run")


def fit(workdir, **arguments):
    few = tiny.data().take(40)
    return tiny.fit(tiny.model(few.tasks), few, workdir=workdir, optimizer="adam(0.5)", **arguments)


def files_of(folder, step):
    found = sorted(p for p in (folder / "checkpoints" / str(step)).rglob("*") if p.is_file())
    assert any("/d/" in str(p) for p in found) and any(p.name == "digests.json" for p in found)
    return [p for p in found if p.name != "digests.json"]


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGE = {
    "is missing": lambda path: path.unlink(),
    r"has [\d,]+ bytes of": lambda path: os.truncate(path, path.stat().st_size // 2),
    r"is not what was written \(its digest differs\)": flip,
}


@pytest.mark.parametrize("what", DAMAGE)
def test_every_file_of_a_checkpoint_is_vouched_for(what, copy, whole):
    """A byte or a bit, in any of its files: the checkpoint before is taken, and that is said."""
    found = checkpoint.Checkpoints(copy / "checkpoints")
    for path in files_of(copy, 20):
        content = path.read_bytes()
        DAMAGE[what](path)
        name = path.relative_to(copy / "checkpoints" / "20").as_posix()
        with pytest.raises(checkpoint.DamagedCheckpoint, match=rf"step 20 in .*checkpoints is damaged: {name} {what}"):
            found.shapes(20, "best")
        if path.parent.name == "d":
            with pytest.warns(UserWarning, match=rf"step 20 in .* is damaged: .*{name} {what}.*; step 10 is taken"):
                assert found.newest(lambda step: found.shapes(step, "best"))[0] == 10
        path.write_bytes(content)
    tiny.assert_same(mtl.load_run(copy).variables, whole[1].variables)


def test_a_run_goes_on_from_the_checkpoint_before(copy, whole):
    """And ends with the same bits; the damaged one is kept beside."""
    flip(next(p for p in files_of(copy, 20) if "/d/" in str(p)))
    with pytest.warns(UserWarning, match="step 20 in .* is damaged: .*; step 10 is taken in its place"):
        loaded = mtl.load_run(copy)
    assert loaded.steps == 10
    assert sorted(os.listdir(copy / "checkpoints")) == ["10", "20"]  # loading changes nothing
    with pytest.warns(UserWarning, match="is damaged"):
        again = fit(copy)
    assert again.resumed_from == 10
    tiny.assert_same(again.state, whole[1].state)
    assert sorted(os.listdir(copy / "checkpoints")) == ["10", "20", "20.damaged"]
    tiny.assert_same(mtl.load_run(copy).variables, whole[1].variables)


def test_where_all_are_damaged_nothing_is_trained_anew(copy):
    for step in (10, 20):
        files_of(copy, step)[-1].unlink()
    for call in (mtl.load_run, fit):
        with pytest.raises(ValueError, match=r"checkpoint step 20 in .* is damaged: .* \(so are 10\); bring it back"):
            call(copy)


@pytest.mark.parametrize(
    "what", ["_CHECKPOINT_METADATA", "best/_METADATA", "best/manifest.ocdbt", "best/d", "cut", "pipe"]
)
def test_checkpoints_without_digests(what, copy, whole):
    """Those of earlier versions: whole ones load, and what cannot be read is damaged, not of another model."""
    for step in (10, 20):
        (copy / "checkpoints" / str(step) / "digests.json").unlink()
    tiny.assert_same(mtl.load_run(copy).variables, whole[1].variables)
    folder = copy / "checkpoints" / "20"
    if what == "cut":
        path = next((folder / "best" / "d").iterdir())
        os.truncate(path, path.stat().st_size // 2)
    elif what == "pipe":
        (folder / "best" / "_sharding").unlink()
        os.mkfifo(folder / "best" / "_sharding")
    elif (folder / what).is_dir():
        shutil.rmtree(folder / what)
    else:
        (folder / what).unlink()
    with pytest.warns(UserWarning, match="checkpoint step 20 in .* is damaged: .*; step 10 is taken"):
        assert mtl.load_run(copy).steps == 10


HOSTILE = {
    "garbage": bytes(range(255, 0, -1)) * 5,
    "deep": b"[" * 100_000 + b"\n",
    "wrong types": b'{"tasks": 5, "step": "ten"}\n',
    "a list": b"[1, 2]\n",
}


@pytest.mark.parametrize("content", [*HOSTILE, "a folder", "a pipe"])
@pytest.mark.parametrize("name", ["data.json", "config.json", "metrics.jsonl"])
def test_hostile_files_get_one_line_that_names_them(name, content, copy):
    path = copy / name
    path.unlink()
    if content == "a folder":
        path.mkdir()
    elif content == "a pipe":
        os.mkfifo(path)
    else:
        path.write_bytes(HOSTILE[content])
    if (name, content) != ("config.json", "wrong types"):  # a config may hold anything
        with pytest.raises(ValueError, match=name) as caught:
            mtl.load_run(copy)
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 400
    if name != "data.json":  # which a fit writes anew
        with pytest.raises(
            ValueError, match=name if content != "wrong types" or name != "config.json" else "another config"
        ):
            fit(copy)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"tasks": 5}, "its field 'tasks' is 5"),
        ({"tasks": [5]}, "a task is damaged: it holds a int"),
        ({"tasks": [{"name": "a", "kind": "regresion", "scaler": None}]}, "unknown kind of task 'a': 'regresion'"),
        ({"tasks": [{"name": "a", "kind": "regression", "scaler": {"mean": ["x"], "std": [1]}}]}, "other than numbers"),
        ({"inputs": {"": {"shape": [10**12], "dtype": "float32"}}}, "a row holds at most 268,435,456 values"),
        ({"inputs": {"": {"shape": [-1], "dtype": "float32"}}}, "negative dimensions"),
        ({"inputs": {"": {"shape": [5]}}}, "there is no field 'dtype'"),
        ({"encoder": ["mlp"]}, r"its field 'encoder' is \['mlp'\]"),
    ],
)
def test_a_description_of_wrong_types(change, message, copy):
    content = json.loads((copy / "data.json").read_text())
    (copy / "data.json").write_text(json.dumps(content | change))
    with pytest.raises(ValueError, match=f"data.json is damaged: .*{message}"):
        mtl.load_run(copy)


def test_records_cut_damaged_and_lost(copy, whole):
    path = copy / "metrics.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    with path.open("ab") as file:  # a kill within a character of two bytes
        file.write('{"step": 30, "split": "å'.encode()[:-1])
    assert mtl.load_run(copy).history == whole[1].history
    path.write_bytes(b"".join([*lines[:-2], b"\x00" * 20 + b"\n", *lines[-2:]]))
    with pytest.raises(ValueError, match=r"metrics.jsonl, line \d is not valid JSON: .*; move the file away to go on"):
        mtl.load_run(copy)
    path.write_bytes(lines[0])
    with pytest.warns(UserWarning, match="metrics.jsonl ends at step 5, before checkpoint step 20; records are lost"):
        mtl.load_run(copy)
    path.unlink()
    with pytest.warns(UserWarning, match="records are lost"):
        assert fit(copy, num_steps=30).resumed_from == 20


def test_what_a_fit_refuses_to_train_in(copy, whole, tmp_path):
    (copy / "config.json").unlink()
    with pytest.raises(ValueError, match="run holds checkpoints but no config.json, so whose they are cannot be told"):
        fit(copy)
    whole[1].save(tmp_path / "saved")
    with pytest.raises(ValueError, match="saved holds a saved run, which cannot be trained on; use another workdir"):
        fit(tmp_path / "saved")
    (tmp_path / "blocked").mkdir()
    (tmp_path / "blocked" / "checkpoints").write_text("")
    with pytest.raises(NotADirectoryError, match="blocked/checkpoints is a file"):
        fit(tmp_path / "blocked")
    with pytest.raises(ValueError, match="workdir 'gs://bucket/run' is a URL"):
        fit("gs://bucket/run")


def test_a_workdir_in_use(copy):
    code = "import pathlib, sys; from mtl_jax.training import lock"
    code += "\nwith lock.held(pathlib.Path(sys.argv[1])): print(1, flush=True); sys.stdin.read()"
    process = subprocess.Popen([sys.executable, "-c", code, str(copy)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    process.stdout.readline()
    with pytest.raises(ValueError, match=rf"run is in use by another process \(pid {process.pid} on host"):
        fit(copy, num_steps=30)
    with pytest.raises(ValueError, match="is in use by another process"):
        mtl.compare(mtl.encoders.mlp(), tiny.data(), ["equal"], workdir=copy)
    assert mtl.load_run(copy).steps == 20  # reading is free
    process.communicate()


def test_the_workdir_is_looked_at_again_once_it_is_locked(tmp_path, monkeypatch):
    """Another run may have come and gone since the first look."""
    real = lock.held

    def held(folder):
        files.write_json(tmp_path / "config.json", {"another": "run"})
        return real(folder)

    monkeypatch.setattr(lock, "held", held)
    with pytest.raises(ValueError, match="holds a run of another config"):
        fit(tmp_path)


def test_a_full_disk_names_the_file():
    with pytest.raises(OSError, match="No space left on device: '/dev/full'"):
        records.append(pathlib.Path("/dev/full"), {"step": 1})


def test_a_checkpoint_that_cannot_be_written_names_its_place(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint.integrity, "write_digests", full)
    with pytest.raises(OSError, match=r"checkpoint step 10 could not be written in .*checkpoints: .*No space left"):
        fit(tmp_path)
