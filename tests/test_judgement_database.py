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
from collected import answer_all, by_label, start

from tripletkit.collecting.database import (
    GivenAnswer,
    JudgementDatabase,
    _connect,
    _make_database,
    only_server,
)
from tripletkit.errors import JudgementsError

NAMES = [f"p{n:02}.png" for n in range(12)]
LABELS = {name: n % 3 for n, name in enumerate(NAMES)}
COUNT = (
    "import sqlite3, sys; connection = sqlite3.connect(sys.argv[1]);"
    "print(connection.execute('SELECT count(*) FROM answers').fetchone()[0]); connection.close()"
)


@pytest.fixture
def asked(tmp_path):
    database, asker = start(tmp_path / "j.sqlite", NAMES, n_questions=20)
    return database, asker, database.add_judge("anna")


def given(screen, client_id="client-0001", side="left", places=(), response_ms=900.0):
    return GivenAnswer(client_id, screen, side, places, response_ms, "keyboard")


def count_elsewhere(path):
    """Count answers as another process does, which closes the file again."""
    done = subprocess.run(
        [sys.executable, "-c", COUNT, str(path)], capture_output=True, text=True, check=True
    )
    return int(done.stdout)


def test_a_judge_cannot_answer_for_another(asked):
    database, asker, anna = asked
    ben = database.add_judge("ben")
    screen = asker.screens(anna.id)[0]
    with pytest.raises(JudgementsError, match="no such screen"):
        database.add_answer(ben.id, given(screen.id))
    database.add_answer(anna.id, given(screen.id))
    with pytest.raises(JudgementsError, match="another screen"):
        database.add_answer(ben.id, given(asker.screens(ben.id)[0].id))


@pytest.mark.parametrize(("side", "places"), [("grid", (0,)), ("left", (0,)), ("up", ()), ("", ())])
def test_an_answer_that_does_not_fit_is_refused(asked, side, places):
    database, asker, judge = asked
    screen = asker.screens(judge.id)[0]
    with pytest.raises(JudgementsError):
        database.add_answer(judge.id, given(screen.id, side=side, places=places))
    assert database.n_answers() == 0


@pytest.mark.parametrize("places", [(), (0, 0), (0, 4), (0, -1), (0, 1, 2)])
def test_a_grid_takes_up_to_so_many_places_of_its_own(tmp_path, places):
    database, asker = start(
        tmp_path / "j.sqlite", NAMES, screen="grid", grid_of=4, grid_pick=2, n_questions=3
    )
    judge = database.add_judge("anna")
    screen = asker.screens(judge.id)[0]
    with pytest.raises(JudgementsError):
        database.add_answer(judge.id, given(screen.id, side="grid", places=places))
    for number, (screen, picked) in enumerate(
        zip(asker.screens(judge.id), [(3, 1), (2,)], strict=False)
    ):
        answer = given(screen.id, f"client-000{number}", "grid", picked)
        assert database.add_answer(judge.id, answer) == "new"


def test_undo_is_a_fact_and_the_screen_is_asked_again(asked):
    database, asker, judge = asked
    first, second = asker.screens(judge.id)[:2]
    database.add_answer(judge.id, given(first.id, "client-0001"))
    database.add_answer(judge.id, given(second.id, "client-0002"))
    assert database.undo(judge.id, "undo-0001") == second.id
    # Sent twice, it takes back one.
    assert database.undo(judge.id, "undo-0001") == second.id
    assert database.n_answers(judge.id) == 1
    assert asker.screens(judge.id)[0].id == second.id
    database.add_answer(judge.id, given(second.id, "client-0003", "right"))
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
            target=database.add_answer, args=(judge.id, given(screen.id, f"client-{number:04}"))
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


def test_many_judges_at_once(tmp_path):
    database, asker = start(tmp_path / "j.sqlite", NAMES, n_questions=15, overlap=2)
    threads = [
        threading.Thread(
            target=answer_all, args=(database, asker, f"judge{n}", by_label(LABELS, seed=n))
        )
        for n in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert database.n_answers() == 90
    rows = database.connection.execute("SELECT count(*) FROM screens GROUP BY judge").fetchall()
    assert [n for (n,) in rows] == [15] * 6


def test_the_file_is_for_its_owner_and_every_commit_reaches_the_disk(asked):
    database = asked[0]
    assert stat.S_IMODE(database.path.stat().st_mode) == 0o600
    found = [
        database.connection.execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("journal_mode", "synchronous", "foreign_keys")
    ]
    assert found == ["wal", 2, 1]


@pytest.mark.integration
def test_a_second_server_is_refused_and_a_dead_one_is_not(tmp_path):
    path = tmp_path / "j.sqlite"
    JudgementDatabase(path).close()
    script = (
        "import sys, time; from pathlib import Path;"
        "from tripletkit.collecting.database import only_server;"
        "lock = only_server(Path(sys.argv[1])); lock.__enter__();"
        "print('held', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    with pytest.raises(JudgementsError, match="another server"), only_server(path):
        pass
    process.kill()
    process.communicate()
    with only_server(path):
        pass


def test_other_files_are_refused(tmp_path):
    text = tmp_path / "notes.sqlite"
    text.write_text("this is no database, and long enough to be taken for one " * 20)
    with pytest.raises(JudgementsError, match="cannot be opened"):
        JudgementDatabase(text)
    other = tmp_path / "other.sqlite"
    with closing(sqlite3.connect(other)) as connection:
        connection.execute("CREATE TABLE t (x)")
    with pytest.raises(JudgementsError, match="another program"):
        JudgementDatabase(other)
    with pytest.raises(JudgementsError, match="there is one"):
        _make_database(other)
    newer = tmp_path / "newer.sqlite"
    _make_database(newer)
    with closing(sqlite3.connect(newer)) as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(JudgementsError, match="expected format 2, got 99"):
        _connect(newer)
    older = tmp_path / "older.sqlite"
    _make_database(older)
    with closing(sqlite3.connect(older)) as connection:
        # What SQLite itself keeps beside our tables says nothing of their age.
        connection.execute("ANALYZE")
        JudgementDatabase(older).close()
        connection.execute("ALTER TABLE judges DROP COLUMN about")
    with pytest.raises(JudgementsError, match="an older version of tripletkit made this database"):
        JudgementDatabase(older)


def test_an_empty_file_is_what_a_killed_start_leaves(tmp_path):
    path = tmp_path / "j.sqlite"
    path.touch()
    assert JudgementDatabase(path).judges() == []
