"""The main job from Python, on handwritten digits: triplets in, answers and a plot out.

    python examples/write_digits.py digits/
    python examples/python_api.py digits/

prints two scores and writes preds.csv and embeddings.png to the folder. The features of 700 images
take a minute the first time.
"""

import sys

import matplotlib.pyplot as plt
import pandas as pd

import tripletkit as tk

folder = sys.argv[1]
model = tk.train(f"{folder}/train.txt", f"{folder}/images", backbone="efficientnet-lite0")
answers = model.answer(f"{folder}/test.txt", output=f"{folder}/preds.csv", overwrite=True)
frozen = model.frozen.answer(f"{folder}/test.txt")
for name, given in {"trained": answers, "frozen": frozen}.items():
    print(f"{name}: {tk.score(given, f'{folder}/truth.csv')!r}")
embeddings = model.embed()  # names, and an array with a row for each image
digits = pd.read_csv(f"{folder}/labels.csv", index_col="name")["label"][embeddings.names]
x, y = embeddings.vectors.T[:2]
plt.scatter(x, y, c=digits, cmap="tab10", s=8)
plt.savefig(f"{folder}/embeddings.png")
