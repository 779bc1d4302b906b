"""Temporary files and locks of processes that are alive, dead, and on other machines."""

import os
import subprocess
import sys
import time

import pytest

from cyclestyle.errors import CycleStyleError
from cyclestyle.files import UNFINISHED, locked, remove_unfinished, unfinished_name


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
