# Sourced by quickstart.sh and tests/run.sh from the top of the repository: makes or reuses
# .venv, installs pinned packages and tripletkit itself, and activates it. What is needed to use
# tripletkit and to collect judgements, or with `with_tools=yes` all that tests and pages need.
# TRIPLETKIT_PINS=no takes whatever versions pip finds: pins are of Python 3.11 on Linux.
python=${PYTHON:-python3}
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
  echo "expected Python 3.11 or newer, got $("$python" --version); set PYTHON=/path/to/python3.11" >&2
  exit 1
}
[ -e .venv/bin/activate ] || [ -e .venv/Scripts/activate ] || "$python" -m venv .venv
# Windows has the folder under another name.
if [ -e .venv/bin/activate ]; then . .venv/bin/activate; else . .venv/Scripts/activate; fi
export PIP_DISABLE_PIP_VERSION_CHECK=1
echo "Installing into .venv: some minutes the first time, 3 to 4 GB, most of it TensorFlow." >&2
if [ "${with_tools:-no}" = yes ]; then
  if [ "${TRIPLETKIT_PINS:-yes}" = yes ]; then
    python -m pip install --quiet --requirement requirements-dev.txt
    python -m pip install --quiet --no-deps --editable .
  else
    python -m pip install --quiet --editable '.[tests,docs,collect,search,parquet]'
  fi
elif [ "${TRIPLETKIT_PINS:-yes}" = yes ]; then
  python -m pip install --quiet --constraint requirements.txt --editable '.[collect]'
else
  python -m pip install --quiet --editable '.[collect]'
fi
