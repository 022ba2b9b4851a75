"""The main job from nothing, where tripletkit is installed; on Windows too.

    python examples/quickstart.py [FOLDER]

Writes a small competition of real handwritten digits to FOLDER (quickstart), trains, answers,
and scores the answers. `examples/quickstart.sh` installs tripletkit first and then runs this.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

AFTER = """
The trained embeddings are preds.csv, the frozen features frozen.csv (no training at all).
  {folder}/preds.csv         an answer to each line of {folder}/test.txt
  {folder}/model/model.json  all that is known of the model
Next, with your own images:
  tripletkit audit train.txt images/
  tripletkit train train.txt images/"""


def main(folder: str) -> None:
    """Run the commands, showing each; stop at the first that fails."""
    # As the folder was typed: `__file__` is absolute.
    run(["python", str(Path(sys.argv[0]).with_name("write_digits.py")), folder])
    for line in (
        f"train {folder}/train.txt {folder}/images -o {folder}/model --force",
        f"predict {folder}/test.txt --model {folder}/model -o {folder}/preds.csv --force",
        f"predict {folder}/test.txt --model {folder}/model --frozen -o {folder}/frozen.csv --force",
        f"score {folder}/preds.csv {folder}/truth.csv",
        f"compare {folder}/preds.csv {folder}/frozen.csv {folder}/truth.csv",
    ):
        run(["tripletkit", *line.split(" ")])
    print(AFTER.format(folder=folder))


def run(words: list[str]) -> None:
    """Show a command and run it by this Python."""
    print(f"\n$ {' '.join(words)}", flush=True)
    module = [] if words[0] == "python" else ["-m", "tripletkit"]
    done = subprocess.run([sys.executable, *module, *words[1:]], check=False)
    if done.returncode:
        sys.exit(done.returncode)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "quickstart")
