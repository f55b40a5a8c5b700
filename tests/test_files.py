"""Files are read within bounds, whatever lies there, and written whole or not at all."""

import json
import os

import pytest

from mtl_jax import files

NOT_JSON = {
    "empty": (b"", "is empty"),
    "cut": (b'{"a": [1, 2', "is not valid JSON: "),
    "binary": (bytes(range(256)), "is not valid JSON: no UTF-8 text"),
    "deep": (b"[" * 100_000, "is nested deeper than 100 levels"),
    "deep and whole": (b"[" * 300 + b"]" * 300, "is nested deeper than 100 levels"),
    "deep objects": (b'{"a":' * 300 + b"1" + b"}" * 300, "is nested deeper than 100 levels"),
    "a number of 5,000 digits": (b"1" * 5000, "is not valid JSON: Exceeds the limit"),
}


@pytest.mark.parametrize("kind", NOT_JSON)
def test_what_is_no_json_gets_one_line_that_names_the_file(kind, tmp_path):
    content, message = NOT_JSON[kind]
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(ValueError, match=f"a.json {message}") as caught:
        files.read_json(tmp_path / "a.json")
    assert "\n" not in str(caught.value)


def test_depth_is_counted(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("[" * files.DEEPEST + "]" * files.DEEPEST)
    files.read_json(path)
    path.write_text("[" * (files.DEEPEST + 1) + "]" * (files.DEEPEST + 1))
    with pytest.raises(ValueError, match="is nested deeper"):
        files.read_json(path)


def test_what_is_no_file_is_not_opened(tmp_path):
    """A pipe would be waited for, and /dev/zero read, without end."""
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zero").symlink_to("/dev/zero")
    with pytest.raises(ValueError, match="folder is a folder; a file is expected there"):
        files.read_json(tmp_path / "folder")
    for name in ("pipe", "zero"):
        with pytest.raises(ValueError, match=f"{name} is no regular file; a file is expected there"):
            files.read_json(tmp_path / name)
    (tmp_path / "huge").touch()
    os.truncate(tmp_path / "huge", 2**35)
    with pytest.raises(ValueError, match="huge is 34,359,738,368 bytes long; at most 33,554,432 are read"):
        files.read_json(tmp_path / "huge")


def test_fields_have_their_types(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps({"tasks": 5, "long": "x" * 1000}))
    assert files.read_object(tmp_path / "a.json", {"tasks": int})["tasks"] == 5
    with pytest.raises(ValueError, match="a.json is damaged: its field 'tasks' is 5"):
        files.read_object(tmp_path / "a.json", {"tasks": list | None})
    with pytest.raises(ValueError, match="a.json is damaged: it has no field 'kind'"):
        files.read_object(tmp_path / "a.json", {"tasks": int, "kind": str})
    with pytest.raises(ValueError) as caught:
        files.read_object(tmp_path / "a.json", {"long": int})
    assert len(str(caught.value)) < 250


def test_drafts_have_names_of_their_own(tmp_path):
    (tmp_path / "a.json.tmp").write_text("mine")
    files.write_whole(tmp_path / "a.json", "1")
    assert (tmp_path / "a.json.tmp").read_text() == "mine" and files.read_json(tmp_path / "a.json") == 1
    assert {p.name for p in tmp_path.iterdir()} == {"a.json", "a.json.tmp"}
    (tmp_path / "plain").write_text("1")
    assert (tmp_path / "a.json").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_writing_follows_links_and_leaves_no_draft(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "a.json").symlink_to("elsewhere/a.json")
    files.write_whole(tmp_path / "a.json", "2")
    assert (tmp_path / "a.json").is_symlink() and (tmp_path / "elsewhere/a.json").read_text() == "2"
    with pytest.raises(IsADirectoryError, match="elsewhere is a folder; a file is to be written there"):
        files.write_whole(tmp_path / "elsewhere", "3")
    with pytest.raises(TypeError):
        files.write_whole(tmp_path / "b.json", None)
    assert {p.name for p in tmp_path.iterdir()} == {"a.json", "elsewhere"}
