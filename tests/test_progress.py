"""How far a stage is, said now and then or shown as a bar."""

import logging
import re
import time

from tripletkit import progress


def test_a_long_stage_says_how_long_it_may_take_while_nothing_is_reported(caplog) -> None:
    def wait_for(pattern: str) -> None:
        end_s = time.monotonic() + 30
        while not any(re.fullmatch(pattern, message) for message in caplog.messages):
            assert time.monotonic() < end_s, caplog.messages
            time.sleep(0.01)

    with caplog.at_level(logging.INFO, "tripletkit"), progress.log_stages(every_s=0.05) as stages:
        report = stages("held-out draws")
        wait_for(r"held-out draws: begun \d+ s ago\.")
        report(1, 4000)
        wait_for("held-out draws: 1 of 4,000, about .* left.")
        report(4000, 4000)
        wait_for(r"held-out draws: done \d+ s ago, at work on what follows\.")
    said = len(caplog.messages)
    time.sleep(0.2)
    assert len(caplog.messages) == said


def test_what_is_done_at_once_shows_no_bar(capsys) -> None:
    with progress.open_stages(True) as stages:
        report = stages("features")
        for done in range(1, 101):
            report(done, 100)
    assert capsys.readouterr().err == ""
