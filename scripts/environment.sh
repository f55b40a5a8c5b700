# Sourced by the other scripts: makes .venv in the clone and installs the project with the extras that are asked for.
# usage: prepare_environment EXTRA[,EXTRA...]

# A step on a CPU asks for its temporaries anew; in huge pages they cost a fraction of the page faults (glibc 2.35 on).
export GLIBC_TUNABLES=${GLIBC_TUNABLES:-glibc.malloc.hugetlb=1}

fail() { printf 'error: %s\n' "$*" >&2; exit 1; }

find_python() {
  # PYTHON chooses; otherwise the first of these that is 3.11 to 3.13.
  local candidate
  for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11}; do
    if "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; then
      echo "$candidate"
      return
    fi
  done
  return 1
}

accelerator_extra() {
  # The JAX build for what is in this machine; nothing for a CPU.
  if command -v nvidia-smi >/dev/null 2>&1 && nvidia-smi -L 2>/dev/null | grep -q GPU; then
    local version
    version=$(nvidia-smi 2>/dev/null | sed -n 's/.*CUDA Version: *\([0-9]*\).*/\1/p' | head -n 1)
    if [ "${version:-12}" -ge 13 ]; then echo cuda13; else echo cuda12; fi
  elif ls /dev/accel* >/dev/null 2>&1 && [ -n "${TPU_NAME:-}${TPU_ACCELERATOR_TYPE:-}" ]; then
    echo tpu
  fi
}

prepare_environment() {
  local extras=$1 python version pins extra stamp accelerator stamps=()
  VENV=${VENV:-.venv}
  python=$(find_python) || fail "Python 3.11, 3.12 or 3.13 is needed; set PYTHON to one (python3 is $(python3 --version 2>&1))"
  if [ ! -x "$VENV/bin/python" ]; then
    echo "making $VENV with $("$python" --version)"
    "$python" -m venv "$VENV" || fail "could not make $VENV; does this Python have the venv module?"
  fi
  version=$("$VENV/bin/python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
  pins=constraints/python$version.txt
  [ -f "$pins" ] || fail "$VENV has Python $version, which the project does not support; remove it and run again"
  accelerator=$(accelerator_extra)
  [ -n "$accelerator" ] && extras="$extras,$accelerator"
  # Extras that were installed before stay, so each has a stamp of its own.
  for extra in ${extras//,/ }; do
    stamp=$VENV/.installed-$(printf '%s\n' "$extra" | cat - setup.cfg pyproject.toml "$pins" | cksum | cut -d ' ' -f 1)
    [ -f "$stamp" ] || stamps+=("$stamp")
  done
  if [ ${#stamps[@]} -gt 0 ]; then
    echo "installing mtl_jax[$extras] into $VENV (some minutes the first time)"
    "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check -c "$pins" -e ".[$extras]" \
      || fail "pip could not install mtl_jax[$extras] (its output is above). Is there a network, and a package index that pip can reach?"
    touch "${stamps[@]}"
  fi
}
