"""What all pages need of a collection, and who is asking."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from flask import current_app, request

from tripletkit.collecting.asking import Asker
from tripletkit.collecting.database import Judge, JudgementDatabase
from tripletkit.collecting.scaled_images import ScaledImages
from tripletkit.collecting.serving import is_same
from tripletkit.collecting.study import Study


@dataclass
class Site:
    """What the pages need.

    Attributes:
        database: where judgements are kept.
        asker: decides what is asked next.
        images: by number.
        study: what is said to judges.
        status: what is to be said of the training in the background.
    """

    database: JudgementDatabase
    asker: Asker
    images: ScaledImages
    study: Study = field(default_factory=Study)
    status: dict[str, Any] = field(default_factory=dict)

    def judge_cookie(self, judge: int) -> str:
        """Name of the cookie of a judge: each has one, so that two can share a browser.

        Cookies of several servers on one machine must not mix.
        """
        return f"tripletkit-{self.database.id}-{judge}"

    @property
    def owner_cookie(self) -> str:
        return f"tripletkit-owner-{self.database.id}"

    @property
    def is_ended(self) -> bool:
        return self.database.fact("ended") is not None


def site() -> Site:
    """Return what belongs to the application that answers this request."""
    return current_app.extensions["tripletkit"]


def is_owner() -> bool:
    """Return whether the request comes with the owner's secret."""
    return is_same(request.cookies.get(site().owner_cookie, ""), site().database.owner_token)


def known_judges() -> list[Judge]:
    """Return the judges whose cookies come with the request."""
    here = site()
    return [
        judge
        for judge in here.database.judges()
        if is_same(request.cookies.get(here.judge_cookie(judge.id), ""), judge.token)
        and judge.state != "revoked"
    ]


def find_judge(given: str, judges: Iterable[Judge]) -> Judge | None:
    """Return whose token this is; every judge is compared, found or not."""
    found = [judge for judge in judges if is_same(given, judge.token)]
    return found[0] if found else None
