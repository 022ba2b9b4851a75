"""How far a stage is, said now and then or shown as a bar."""

from __future__ import annotations

import logging

from tripletkit import progress


def test_a_long_stage_says_each_half_minute_how_long_it_may_take(monkeypatch, caplog) -> None:
    now_s = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now_s[0])
    report = progress.log_progress("held-out draws")
    with caplog.at_level(logging.INFO, "tripletkit"):
        for done in range(13):
            report(done, 12)
            now_s[0] += 20
    assert caplog.messages == [
        "held-out draws: 2 of 12, about 3 min left.",
        "held-out draws: 4 of 12, about 3 min left.",
        "held-out draws: 6 of 12, about 2 min left.",
        "held-out draws: 8 of 12, about 80 s left.",
        "held-out draws: 10 of 12, about 40 s left.",
    ]


def test_what_is_done_at_once_shows_no_bar(capsys) -> None:
    with progress.open_stages(True) as stages:
        report = stages("features")
        for done in range(1, 101):
            report(done, 100)
    assert capsys.readouterr().err == ""
