#!/usr/bin/env bash
# The main job from a bare clone: makes .venv, installs, trains and compares. Arguments go to experiments.quickstart.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/environment.sh
prepare_environment digits
exec "$VENV/bin/python" -m experiments.quickstart "$@"
