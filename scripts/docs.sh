#!/usr/bin/env bash
# The documentation from a bare clone: makes .venv if needed, installs the docs extra, runs every page's code, builds the site
# with warnings as errors. Arguments go to `mkdocs` in place of "build": scripts/docs.sh serve
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/environment.sh
prepare_environment docs
if [ $# -gt 0 ]; then exec "$VENV/bin/mkdocs" "$@"; fi
"$VENV/bin/python" scripts/check_docs.py docs/*.md  # README's runs in scripts/wheel.sh
"$VENV/bin/mkdocs" build --quiet
