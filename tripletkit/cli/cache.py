"""`tripletkit cache`: look after the feature store."""

from __future__ import annotations

from pathlib import Path

import click

from tripletkit import defaults
from tripletkit.cli.console import say, show_result
from tripletkit.cli.options import Command, WholeRange, takes


@click.group()
def cache() -> None:
    """Show, clear or prune the store of features that backbones have computed.

    \b
    tripletkit cache info
    tripletkit cache prune --unused-days 30
    tripletkit cache clear --yes
    """


@cache.command(cls=Command)
@takes("cache", "as_json")
def info(cache: Path | None, as_json: bool) -> None:
    """Show where the store is and what it holds.

    \b
    tripletkit cache info --json
    """
    from tripletkit.api.listings import cache_info

    show_result(cache_info(cache), as_json)


@cache.command(cls=Command)
@click.option("--yes", is_flag=True, help="Do not ask before deleting.")
@takes("cache")
def clear(cache: Path | None, yes: bool) -> None:
    """Delete the store, and the networks written beside it. Both are made again when needed.

    \b
    tripletkit cache clear --yes
    """
    from tripletkit.api.listings import cache_info, clear_cache, show_megabytes

    if not yes:
        click.confirm(f"Delete {cache_info(cache).path}?", abort=True, err=True)
    say(f"Freed {show_megabytes(clear_cache(cache))}.")


@cache.command(cls=Command)
@click.option(
    "--unused-days",
    type=WholeRange(0),
    default=defaults.PRUNE_UNUSED_DAYS,
    show_default=True,
    help="Drop the features of backbones that were not used for so many days, and their networks.",
)
@takes("cache")
def prune(cache: Path | None, unused_days: int) -> None:
    """Drop features of images that are gone or changed, and of backbones long unused.

    \b
    tripletkit cache prune --unused-days 30
    """
    from tripletkit.api.listings import prune_cache

    n_dropped = prune_cache(cache, unused_days=unused_days)
    if n_dropped is None:
        say("There is no store.")
    else:
        say(f"Dropped the features of {n_dropped:,} images.")
