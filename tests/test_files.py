"""Temporary files and locks of processes that are alive, dead, and on other machines."""

import errno
import os
import subprocess
import sys
import time

import pytest

from cyclestyle.errors import CycleStyleError
from cyclestyle.files import UNFINISHED, append_line, atomic_write, locked, remove_unfinished, unfinished_name


def test_only_what_dead_processes_left_is_removed(tmp_path):
    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)
    mine = unfinished_name("a.png")
    machine = mine.removeprefix(UNFINISHED).rpartition(f"-{os.getpid()}-")[0]
    old = time.time() - 2 * 24 * 3600
    files = {
        mine: True,
        f"{UNFINISHED}{machine}-{os.getppid()}-b.png": True,
        f"{UNFINISHED}{machine}-{dead.stdout.strip()}-c.png": False,
        f"{UNFINISHED}elsewhere-1-d.png": True,
        f"{UNFINISHED}elsewhere-1-old.png": False,
        f"{UNFINISHED}of_an_earlier_version.png": False,
        "image.png": True,
    }
    for name in files:
        (tmp_path / name).touch()
    os.utime(tmp_path / f"{UNFINISHED}elsewhere-1-old.png", (old, old))
    remove_unfinished(tmp_path)
    assert {name: (tmp_path / name).exists() for name in files} == files


def test_files_are_written_where_there_are_neither_modes_nor_syncing(tmp_path, monkeypatch):
    def refuse(number):
        def call(*_):
            raise OSError(number, os.strerror(number))

        return call

    monkeypatch.setattr(os, "chmod", refuse(errno.EPERM))
    monkeypatch.setattr(os, "fsync", refuse(errno.EINVAL))
    with atomic_write(tmp_path / "a.txt", sync=True) as file:
        file.write(b"content")
    assert (tmp_path / "a.txt").read_bytes() == b"content"
    assert len(list(tmp_path.iterdir())) == 1
    monkeypatch.setattr(os, "fsync", refuse(errno.EIO))  # the disk is broken
    with pytest.raises(OSError, match=os.strerror(errno.EIO)), atomic_write(tmp_path / "a.txt", sync=True) as file:
        file.write(b"other")
    assert (tmp_path / "a.txt").read_bytes() == b"content"


HOLD = "import sys, pathlib\nfrom cyclestyle.files import locked\nwith locked(pathlib.Path(sys.argv[1])):\n"


def test_a_lock_holds_until_its_process_ends_however_it_ends(tmp_path):
    code = HOLD + "    print('held', flush=True)\n    sys.stdin.read()"
    holder = subprocess.Popen(
        [sys.executable, "-c", code, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout.readline() == "held\n"
    message = rf"another process is working in .* \(process {holder.pid} on "
    with pytest.raises(CycleStyleError, match=message), locked(tmp_path):
        pass
    holder.kill()
    holder.wait()
    with locked(tmp_path):
        assert (tmp_path / ".lock").exists()
    assert not (tmp_path / ".lock").exists()


APPEND = """
import sys, pathlib
from cyclestyle.files import append_line
for number in range(200):
    append_line(pathlib.Path(sys.argv[1]), f"{sys.argv[2]} {number} " + "x" * 500)
"""


def test_lines_of_several_processes_stay_whole(tmp_path):
    path = tmp_path / "lines"
    writers = [subprocess.Popen([sys.executable, "-c", APPEND, path, name]) for name in "abc"]
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    lines = path.read_text().splitlines()
    assert sorted(lines) == sorted(f"{name} {number} " + "x" * 500 for name in "abc" for number in range(200))


def test_an_incomplete_line_is_replaced(tmp_path):
    path = tmp_path / "lines"
    for before, after in (("", "new\n"), ("one\n", "one\nnew\n"), ("one\nhal", "one\nnew\n"), ("hal", "new\n")):
        path.write_text(before)
        append_line(path, "new")
        assert path.read_text() == after


def test_a_line_that_does_not_fit_leaves_the_file_as_it_was(tmp_path):
    """A limit of the size of files stands for a full disk."""
    code = """
import pathlib, resource, signal, sys
from cyclestyle.files import append_line
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20, 20))
append_line(pathlib.Path(sys.argv[1]), "0123456789")
append_line(pathlib.Path(sys.argv[1]), "0123456789")
"""
    result = subprocess.run([sys.executable, "-c", code, tmp_path / "lines"], capture_output=True, text=True)
    assert "OSError" in result.stderr
    assert (tmp_path / "lines").read_text() == "0123456789\n"
