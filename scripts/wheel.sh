#!/usr/bin/env bash
# A wheel that works outside the clone: builds it, installs it into a fresh environment, and runs README's code there.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/environment.sh
prepare_environment test
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
root=$PWD
# From a copy of what git has: a build leaves nothing behind in the clone.
git archive --format=tar HEAD | tar -x -C "$scratch" --one-top-level=source
"$VENV/bin/python" -m pip wheel --quiet --disable-pip-version-check --no-deps -w "$scratch/dist" "$scratch/source"
"$VENV/bin/python" -m venv "$scratch/venv"
version=$("$VENV/bin/python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
"$scratch/venv/bin/python" -m pip install --quiet --disable-pip-version-check -c "constraints/python$version.txt" \
  "$(ls "$scratch"/dist/*.whl)[digits]"
cd "$scratch"
venv/bin/python - <<'CHECK'
import importlib.resources
import mtl_jax
assert "site-packages" in mtl_jax.__file__, mtl_jax.__file__
assert importlib.resources.files("mtl_jax").joinpath("py.typed").is_file(), "no py.typed in the wheel"
CHECK
venv/bin/python "$root/scripts/check_docs.py" README.md
