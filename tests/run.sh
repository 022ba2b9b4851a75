#!/usr/bin/env bash
# Linter, types, pages and tests. Makes or reuses .venv; --clean makes a new one. Other arguments go
# to pytest; `-m` replaces the marks.
set -euo pipefail
cd "$(dirname "$0")/.."
if [ "${1:-}" = --clean ]; then
  rm -rf .venv
  shift
fi
with_tools=yes
. examples/make_venv.sh

# Pages are tested in a browser where Debian's packages can be had; elsewhere that is skipped.
if ! command -v chromium >/dev/null && command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; then
  { apt-get update && apt-get install --yes chromium chromium-driver; } >/dev/null 2>&1 ||
    echo "chromium cannot be installed: tests in a browser are skipped" >&2
fi

part() {
  local start=$SECONDS
  "$@"
  echo "$((SECONDS - start)) s: $*" >&2
}

part ruff check .
part ruff format --check .
part mypy
# No network is asked: links to other projects are plain links.
part python -m sphinx -q -W --keep-going -b html docs docs/_build/html
# Each process of pytest has its own threads otherwise, and they wait for each other.
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} TF_NUM_INTRAOP_THREADS=${TF_NUM_INTRAOP_THREADS:-1}
# In the order of their names: files of few tests are long, and would all come last otherwise.
part python -m pytest -n auto --dist loadfile --no-loadscope-reorder -m "not campaign" "$@"
