"""No line of a text file, however long or odd, costs more memory than it is worth, or crashes."""

from __future__ import annotations

import io
import subprocess
import sys

import pytest
from opened import (
    read_answers,
    read_labels,
    read_triplets,
    read_triplets_with_shares,
    read_truth,
    read_votes,
)

from tripletkit import TripletkitError
from tripletkit.data.splits.held_out_draws import read_held_out
from tripletkit.data.tables import _split_csv_line
from tripletkit.data.text_files import (
    MAX_LINE_BYTES,
    check_text,
    parse_number,
)

READERS = [
    read_triplets,
    read_votes,
    read_triplets_with_shares,
    read_labels,
    read_answers,
    read_truth,
]


@pytest.mark.parametrize("n_before", [0, 1, 5])
def test_lines_may_be_as_long_as_is_said_and_no_longer(n_before):
    longest = b"x" * MAX_LINE_BYTES
    for end in (b"", b"\n", b"\n" + b"y\n" * 100_000):
        data = b"a b c\n" * n_before + longest + end
        assert check_text(data, "t.txt") == data
        with pytest.raises(TripletkitError) as caught:
            check_text(data.replace(longest, b"x" + longest), "t.txt")
        assert str(caught.value) == (
            f"t.txt:{n_before + 1}: expected a line of at most 131,072 bytes, got one of 131,073."
        )


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("line", [b'"' + b"x" * 200_000, b'a,"' + b'""' * 100_000, b"," * 200_000])
@pytest.mark.parametrize(
    "before", [b"", b"name,label\nx,y\n", b"a,b,c,prediction,votes_b,votes_c\n"]
)
def test_readers_refuse_endless_lines(reader, line, before):
    with pytest.raises(TripletkitError, match=r"in\.csv:\d+: expected a line of at most 131,072"):
        reader(io.BytesIO(before + line), "in.csv")


def test_a_list_of_held_out_names_with_an_endless_line_is_refused(tmp_path):
    path = tmp_path / "held.csv"
    path.write_bytes(b'name,label\n"' + b"x" * 200_000)
    with pytest.raises(TripletkitError, match=r"held\.csv:2: expected a line of at most"):
        read_held_out(path, tmp_path)


def test_fields_over_many_lines_have_an_end(tmp_path):
    text = 'name,label,note\na,x,"' + "word " * 10 + "\n" + "more words\n" * 20_000
    with pytest.raises(TripletkitError, match=r"labels\.csv:2: .* with each quote closed"):
        read_labels(text)
    closed = 'name,label,note\na,x,"two\nlines"\nb,y,\n'
    assert read_labels(closed.encode()) == {"a": "x", "b": "y"}


@pytest.mark.integration
@pytest.mark.parametrize("quote", ['"', ""])
def test_a_line_of_50_mb_takes_little_memory(tmp_path, quote):
    path = tmp_path / "long.txt"
    path.write_text(quote + "x" * 50_000_000)
    script = (
        "import sys\n"
        "from tripletkit.cli.main import tripletkit\n"
        "try:\n"
        "    tripletkit(['audit', sys.argv[1]])\n"
        "finally:\n"
        "    print(open('/proc/self/status').read().split('VmHWM:')[1].split()[0])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, path],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 1
    assert "long.txt:1: expected a line of at most 131,072 bytes, got one of 50,000" in done.stderr
    assert int(done.stdout) < 500_000  # kB; Python with pandas alone takes 150,000


@pytest.mark.parametrize(
    "text", ["1_0", "١", "１", "nan", "inf", "0x1", "1e", "", "--1", "1 0", "²"]
)
def test_numbers_are_plain_digits(text):
    assert parse_number(text) != parse_number(text)


@pytest.mark.parametrize("text", ["1", "-1", "+1.", ".5", "1e5", "1.5E-3", " 7 "])
def test_plain_numbers_are_what_python_reads(text):
    assert parse_number(text) == float(text)


def test_split_csv_line_keeps_blanks_in_quotes_only():
    assert _split_csv_line('  a b , " c " ,"d ""e""",') == ["a b", " c ", 'd "e"', ""]
    for broken in ('"a,b', 'a,"b"c', 'a"b,"c"'):
        with pytest.raises(ValueError, match="expected a CSV row with each quote closed"):
            _split_csv_line(broken)
