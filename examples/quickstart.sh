#!/usr/bin/env bash
# Installs tripletkit into .venv and runs quickstart.py: digits, training, answers, score.
set -euo pipefail
cd "$(dirname "$0")/.."
. examples/make_venv.sh
python examples/quickstart.py
echo "  (first: . .venv/bin/activate)"
