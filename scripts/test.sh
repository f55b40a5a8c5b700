#!/usr/bin/env bash
# The tests from a bare clone: makes .venv if needed, installs the test extra, runs pytest. Arguments go to pytest.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/environment.sh
prepare_environment test
# Compiling keeps one core busy, so a few workers share the files.
exec "$VENV/bin/python" -m pytest -n auto --maxprocesses=4 --dist loadfile "$@"
