#!/usr/bin/env bash
# Linter and tests. Makes or reuses .venv; --clean makes a new one. Other arguments go to pytest.
set -euo pipefail
cd "$(dirname "$0")/.."
if [ "${1:-}" = --clean ]; then
  rm -rf .venv
  shift
fi
. examples/make_venv.sh

# The report is tested in a browser where Debian's packages can be had; elsewhere that is skipped.
if ! command -v chromium >/dev/null && command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; then
  { apt-get update && apt-get install --yes chromium chromium-driver; } >/dev/null 2>&1 ||
    echo "chromium cannot be installed: tests in a browser are skipped" >&2
fi

ruff check .
ruff format --check .
exec python -m pytest "$@"
