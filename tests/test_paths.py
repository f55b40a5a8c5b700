"""Paths as people write them."""

import pathlib

import pytest

from mtl_jax import paths


def test_the_home_folder_and_plain_paths(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert paths.local("~/runs/a") == tmp_path / "runs" / "a"
    for plain in ("runs/a", "C:/runs", "a:b", pathlib.Path("x/../y")):
        assert paths.local(plain) == pathlib.Path(plain)


@pytest.mark.parametrize("url", ["gs://bucket/run", "s3://bucket", "file:///tmp/a", pathlib.Path("gs://bucket/run")])
def test_urls_are_refused(url):
    with pytest.raises(ValueError, match="workdir '.*' is a URL; files are kept on local paths only"):
        paths.local(url, "workdir")


def test_other_refusals(tmp_path):
    with pytest.raises(ValueError, match="workdir is empty; give a path"):
        paths.local("", "workdir")
    with pytest.raises(ValueError, match="'~nobody-of-this-name/a': Could not determine home"):
        paths.local("~nobody-of-this-name/a")
    (tmp_path / "table.csv").write_text("a")
    for inside in ("table.csv", "table.csv/run", "table.csv/a/b"):
        with pytest.raises(NotADirectoryError, match="workdir .* cannot be a folder: .*table.csv is a file"):
            paths.local_folder(tmp_path / inside, "workdir")


def test_links_are_followed(tmp_path):
    (tmp_path / "link").symlink_to("real")
    assert paths.followed(tmp_path / "link") == tmp_path.resolve() / "real"
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(ValueError, match="loop is a link that leads back to itself"):
        paths.followed(tmp_path / "loop")
