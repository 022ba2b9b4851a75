"""The main job from Python, on handwritten digits: a table of triplets in, answers and a plot out.

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
triplets = pd.read_csv(f"{folder}/train.txt", sep=" ", names=["a", "b", "c"], dtype=str)
model = tk.train(triplets, f"{folder}/images", backbone="efficientnet-lite0")
answers = model.answer(f"{folder}/test.txt")
answers.write(f"{folder}/preds.csv", overwrite=True)
print("trained:", tk.score(answers, f"{folder}/truth.csv"))
print("frozen: ", tk.score(model.frozen.answer(f"{folder}/test.txt"), f"{folder}/truth.csv"))
embeddings = model.embed()  # names, and an array with a row for each image
digits = pd.read_csv(f"{folder}/labels.csv", index_col="name")["label"][embeddings.names]
plt.scatter(*embeddings.vectors.T[:2], c=digits, cmap="tab10", s=8)
plt.savefig(f"{folder}/embeddings.png")
