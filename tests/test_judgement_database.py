"""The database: one answer one transaction, undone or not, and no second server."""

from __future__ import annotations

import signal
import sqlite3
import stat
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import pytest
from collected import JudgementDatabase, sent, start

from tripletkit.errors import JudgementsError

NAMES = [f"p{n:02}.png" for n in range(12)]
COUNT = (
    "import sqlite3, sys; connection = sqlite3.connect(sys.argv[1]);"
    "print(connection.execute('SELECT count(*) FROM answers').fetchone()[0]); connection.close()"
)


@pytest.fixture
def asked(tmp_path):
    database, asker = start(tmp_path / "j.sqlite", NAMES, n_questions=20)
    return database, asker, database.add_judge("anna")


def count_elsewhere(path):
    """Count answers as another process does, which closes the file again."""
    done = subprocess.run(
        [sys.executable, "-c", COUNT, str(path)], capture_output=True, text=True, check=True
    )
    return int(done.stdout)


def test_an_answer_that_does_not_fit_is_refused(asked, tmp_path):
    grids = start(tmp_path / "g.sqlite", NAMES, screen="grid", grid_of=4, grid_pick=2)
    places = [(), (0, 0), (0, 4), (0, -1), (0, 1, 2)]
    for (database, asker), wrong in (
        (asked[:2], [("grid", (0,)), ("left", (0,)), ("up", ()), ("", ())]),
        (grids, [("left", ()), *(("grid", each) for each in places)]),
    ):
        judge = database.add_judge("anna").id
        screen = asker.screens(judge)[0].id
        for side, picked in wrong:
            with pytest.raises(JudgementsError):
                database.add_answer(judge, sent(screen, side=side, places=picked))
        assert database.n_answers() == 0
    for number, picked in enumerate([(3, 1), (2,)]):
        answer = sent(asker.screens(judge)[0].id, f"client-000{number}", "grid", picked)
        assert database.add_answer(judge, answer) == "new"


def test_a_judge_cannot_answer_for_another(asked):
    database, asker, anna = asked
    ben = database.add_judge("ben")
    screen = asker.screens(anna.id)[0].id
    with pytest.raises(JudgementsError, match="no such screen for this judge"):
        database.add_answer(ben.id, sent(screen))
    assert database.add_answer(anna.id, sent(screen)) == "new"
    with pytest.raises(JudgementsError, match="another screen"):
        database.add_answer(ben.id, sent(asker.screens(ben.id)[0].id))
    assert database.n_answers() == 1


def test_undo_is_a_fact_and_the_screen_is_asked_again(asked):
    database, asker, judge = asked
    first, second = asker.screens(judge.id)[:2]
    database.add_answer(judge.id, sent(first.id, "client-0001"))
    database.add_answer(judge.id, sent(second.id, "client-0002"))
    assert database.undo(judge.id, "undo-0001") == second.id
    # Sent twice, it takes back one.
    assert database.undo(judge.id, "undo-0001") == second.id
    assert database.n_answers(judge.id) == 1
    assert asker.screens(judge.id)[0].id == second.id
    database.add_answer(judge.id, sent(second.id, "client-0003", "right"))
    rows = database.connection.execute(
        "SELECT side, undone_at IS NOT NULL AS undone FROM answers WHERE screen = ?", (second.id,)
    ).fetchall()
    assert [tuple(row) for row in rows] == [("left", 1), ("right", 0)]
    assert database.undo(judge.id, "undo-0002") == second.id
    assert database.undo(judge.id, "undo-0003") == first.id
    assert database.undo(judge.id, "undo-0004") is None


@pytest.mark.integration
def test_what_is_acknowledged_is_there_for_other_processes(asked):
    """Other processes come and go while threads of this one open connections and write.

    With a lock lost on the way, such a process takes the database for unused when it closes it,
    and deletes the journal that this one goes on writing to.
    """
    database, asker, judge = asked
    for number in range(6):
        screen = asker.screens(judge.id)[0]
        thread = threading.Thread(
            target=database.add_answer, args=(judge.id, sent(screen.id, f"client-{number:04}"))
        )
        thread.start()
        thread.join()
        assert count_elsewhere(database.path) == number + 1


@pytest.mark.integration
def test_a_killed_process_loses_no_acknowledged_answer(tmp_path):
    path = tmp_path / "j.sqlite"
    script = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from pathlib import Path
from collected import answer_all, start
database, asker = start(Path({str(path)!r}), {NAMES!r}, n_questions=1000)
def answering(anchor, shown):
    print(database.n_answers(), flush=True)
    return "left"
answer_all(database, asker, "anna", answering)
"""
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    last = 0
    while last < 40:
        last = int(process.stdout.readline())
    process.send_signal(signal.SIGKILL)
    rest = process.communicate()[0].split()
    last = int(rest[-1]) if rest else last
    found = count_elsewhere(path)
    assert found in (last, last + 1)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_the_file_is_for_its_owner_and_every_commit_reaches_the_disk(asked):
    database = asked[0]
    assert stat.S_IMODE(database.path.stat().st_mode) == 0o600
    found = [
        database.connection.execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("journal_mode", "synchronous", "foreign_keys")
    ]
    assert found == ["wal", 2, 1]


@pytest.mark.parametrize(
    ("statements", "message"),
    [
        ("CREATE TABLE t (x)", "another program"),
        ("PRAGMA user_version = 99", "expected format 2, got 99"),
        ("ALTER TABLE judges DROP COLUMN about", "an older version of tripletkit made this"),
    ],
)
def test_other_files_are_refused(tmp_path, statements, message):
    path = tmp_path / "other.sqlite"
    path.write_text("this is no database, and long enough to be taken for one " * 20)
    with pytest.raises(JudgementsError, match="cannot be opened"):
        JudgementDatabase(path)
    path.unlink()
    if "CREATE" not in statements:
        JudgementDatabase(path).close()
        with closing(sqlite3.connect(path)) as connection:
            # What SQLite itself keeps beside our tables says nothing of their age.
            connection.execute("ANALYZE")
        JudgementDatabase(path).close()
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(statements)
    with pytest.raises(JudgementsError, match=message):
        JudgementDatabase(path)


def test_nothing_is_added_to_a_damaged_file(asked):
    database, asker, judge = asked
    asker.screens(judge.id)
    database.close()
    whole = database.path.read_bytes()
    for page in range(4096, len(whole), 8192):
        damaged = whole[:page] + bytes(4096) + whole[page + 4096 :]
        database.path.write_bytes(damaged)
        with pytest.raises(JudgementsError, match=r"j\.sqlite: (damaged|cannot be opened)"):
            JudgementDatabase(database.path)
        assert database.path.read_bytes() == damaged


@pytest.mark.parametrize(
    ("key", "value"),
    [("key", "[]"), ("key", "00"), ("key", ""), ("key", b"\xff"), ("owner", ""), ("open", "")],
)
def test_a_database_without_its_secrets_is_not_served(asked, key, value):
    database = asked[0]
    with database.writing() as connection:
        connection.execute("UPDATE meta SET value = ? WHERE key = ?", (value, key))
    database.close()
    with pytest.raises(JudgementsError, match="damaged"):
        JudgementDatabase(database.path)


def test_an_empty_file_is_what_a_killed_start_leaves(tmp_path):
    path = tmp_path / "j.sqlite"
    path.touch()
    assert JudgementDatabase(path).judges() == []
