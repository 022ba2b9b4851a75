"""Put a model's embeddings into LanceDB, and search there.

    pip install lancedb
    python examples/to_lancedb.py MODEL IMAGES DATABASE

The distance of the table is the model's own, so LanceDB finds what `tripletkit neighbors` finds.
"""

from __future__ import annotations

import sys

import lancedb

import tripletkit as tk


def main(model: str, images: str, database: str) -> None:
    """Write the table `images` into the database, and print the neighbours of its first row."""
    embeddings = tk.load(model).embed(images)
    rows = [
        {"name": name, "vector": vector}
        for name, vector in zip(embeddings.names, embeddings.vectors, strict=True)
    ]
    table = lancedb.connect(database).create_table("images", rows, mode="overwrite")
    # Embeddings have length 1: by L2, L1 aside, the order is that of the cosine.
    found = table.search(rows[0]["vector"]).distance_type("cosine").limit(6).to_list()
    for row in found[1:]:
        print(rows[0]["name"], row["name"], f"{row['_distance']:.4f}", sep="\t")


if __name__ == "__main__":
    main(*sys.argv[1:])
