#!/usr/bin/env bash
# The main job from nothing: installs tripletkit into .venv, writes a small competition of real
# handwritten digits to quickstart/, trains, answers, and scores the answers.
set -euo pipefail
cd "$(dirname "$0")/.."
. examples/make_venv.sh

run() { printf '\n$ %s\n' "$*"; "$@"; }

folder=quickstart
run python examples/write_digits.py $folder
run tripletkit train $folder/train.txt $folder/images -o $folder/model --force
run tripletkit predict $folder/test.txt --model $folder/model -o $folder/preds.csv
run tripletkit predict $folder/test.txt --model $folder/model --frozen -o $folder/frozen.csv
run tripletkit score $folder/preds.csv $folder/truth.csv
run tripletkit compare $folder/preds.csv $folder/frozen.csv $folder/truth.csv

cat <<END

The trained embeddings are preds.csv, the frozen features frozen.csv (no training at all).
  $folder/preds.csv         an answer to each line of $folder/test.txt
  $folder/model/model.json  all that is known of the model
Next, with your own images:
  . .venv/bin/activate
  tripletkit audit train.txt images/
  tripletkit train train.txt images/
END
