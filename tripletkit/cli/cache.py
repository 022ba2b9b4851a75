"""`tripletkit cache`: look after the feature store."""

from __future__ import annotations

from pathlib import Path

import click

from tripletkit import defaults
from tripletkit.cli.console import say, show_json
from tripletkit.cli.options import WholeRange, cache_option, json_option, quiet_option
from tripletkit.results import align_columns


@click.group()
def cache() -> None:
    """Show, clear or prune the store of features that backbones have computed.

    \b
    tripletkit cache info
    tripletkit cache prune --unused-days 30
    tripletkit cache clear --yes
    """


@cache.command()
@cache_option
@json_option
def info(cache: Path | None, as_json: bool) -> None:
    """Show where the store is and what it holds.

    \b
    tripletkit cache info --json
    """
    from tripletkit.features.stores import find_store, open_store

    path, size_bytes = find_store(cache)
    rows = []
    if size_bytes is not None:
        with open_store(cache) as store:
            rows = [use.to_dict() for use in store.uses()]
        _, size_bytes = find_store(cache)
    size_bytes = size_bytes or 0
    if as_json:
        show_json({"path": str(path), "size_bytes": size_bytes, "spaces": rows})
        return
    click.echo(f"{path}: {_megabytes(size_bytes)}" if rows else f"{path}: empty")
    if rows:
        table = [["backbone", "weights", "stage", "view", "images", "size", "last used"]]
        table += [
            [
                row["backbone"],
                row["weights_sha256"][:12],
                row["stage"],
                row["view"],
                f"{row['n_images']:,}",
                _megabytes(row["size_bytes"]),
                row["last_used"],
            ]
            for row in rows
        ]
        click.echo(align_columns(table, right=[4, 5]))


@cache.command()
@click.option("--yes", is_flag=True, help="Do not ask before deleting.")
@cache_option
@quiet_option
def clear(cache: Path | None, yes: bool) -> None:
    """Delete the store, and the networks written beside it. Both are made again when needed.

    \b
    tripletkit cache clear --yes
    """
    from tripletkit.features.exported_networks import remove_networks
    from tripletkit.features.stores import default_folder, empty_store, find_store

    if not yes:
        click.confirm(f"Delete {find_store(cache)[0]}?", abort=True, err=True)
    freed = empty_store(cache) + remove_networks(cache or default_folder())
    say(f"Freed {_megabytes(freed)}.")


@cache.command()
@click.option(
    "--unused-days",
    type=WholeRange(0),
    default=defaults.PRUNE_UNUSED_DAYS,
    show_default=True,
    help="Drop the features of backbones that were not used for so many days, and their networks.",
)
@cache_option
@quiet_option
def prune(cache: Path | None, unused_days: int) -> None:
    """Drop features of images that are gone or changed, and of backbones long unused.

    \b
    tripletkit cache prune --unused-days 30
    """
    import time

    from tripletkit.features.exported_networks import remove_networks
    from tripletkit.features.stores import default_folder, find_store, open_store

    if find_store(cache)[1] is None:
        say("There is no store.")
        return
    with open_store(cache) as store:
        dropped = store.prune(unused_days)
    remove_networks(cache or default_folder(), time.time() - unused_days * 86_400)
    say(f"Dropped the features of {dropped:,} images.")


def _megabytes(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:,.1f} MB"
