# Sourced by quickstart.sh and tests/run.sh from the top of the repository: makes or reuses
# .venv, installs the pinned packages and tripletkit itself, and activates it.
python=${PYTHON:-python3}
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
  echo "expected Python 3.11 or newer, got $("$python" --version); set PYTHON=/path/to/python3.11" >&2
  exit 1
}
[ -x .venv/bin/python ] || "$python" -m venv .venv
. .venv/bin/activate
export PIP_DISABLE_PIP_VERSION_CHECK=1
python -m pip install --quiet --requirement requirements.txt
python -m pip install --quiet --no-deps --editable .
