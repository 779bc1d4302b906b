"""Output that nobody reads, or that cannot be written, and processes without standard streams."""

import io
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from cyclestyle.commands.line.output import lost_output, tolerant, write_result
from cyclestyle.errors import CycleStyleError
from cyclestyle.signals import StopSignals


def test_output_without_a_reader_is_dropped_and_the_work_goes_on():
    read, write = os.pipe()
    os.close(read)
    stream = tolerant(None, write)
    for _ in range(2):  # the second one goes to the null device
        print("a line", file=stream, flush=True)
    assert os.path.samestat(os.fstat(write), os.stat(os.devnull))
    os.close(write)


def test_a_result_without_a_reader_is_an_error(monkeypatch):
    read, write = os.pipe()
    os.close(read)
    monkeypatch.setattr(sys, "stdout", tolerant(None, write))
    print("a line", flush=True)
    assert lost_output() == ""
    with pytest.raises(CycleStyleError, match="the result could not be written to standard output: Broken pipe"):
        write_result(b"image")
    os.close(write)


def test_a_slow_reader_gets_everything():
    read, write = os.pipe()
    os.set_blocking(write, False)
    content = bytes(2**20)  # more than a pipe holds
    with ThreadPoolExecutor(1) as pool:
        stream = tolerant(None, write)
        written = pool.submit(lambda: (stream.buffer.write(content), stream.flush(), os.close(write)))
        with open(read, "rb") as file:
            assert file.read() == content
        written.result()


def test_what_the_encoding_of_the_output_lacks_is_escaped():
    read, write = os.pipe()
    stream = tolerant(io.TextIOWrapper(io.BytesIO(), encoding="ascii"), write)
    print("256×256", file=stream, flush=True)
    assert os.read(read, 100) == b"256\\xd7256\n"
    os.close(read)
    os.close(write)


START = "import sys; from cyclestyle.cli import console; sys.argv = ['cyclestyle', '--version']; console()"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
def test_output_that_does_not_fit_on_the_disk_is_a_failure():
    with open("/dev/full", "w") as full:
        process = subprocess.run([sys.executable, "-c", START], stdout=full, stderr=subprocess.PIPE, text=True)
    assert process.returncode == 1
    assert process.stderr == "cyclestyle: error: the output could not be written: No space left on device\n"


def test_a_process_without_standard_streams_runs_and_gives_their_numbers_to_no_other_file():
    closed = "import os\nfor number in (0, 1, 2): os.close(number)\n"
    code = "import os, sys; from cyclestyle.commands.line.output import keep_output_going; keep_output_going(); "
    code += "print(1, file=sys.stderr); print(sys.stdout.isatty()); sys.exit(os.open(os.devnull, os.O_RDONLY))"
    code = f"{closed}os.execv({sys.executable!r}, [{sys.executable!r}, '-c', {code!r}])"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 3


def test_a_closed_terminal_stops_a_run_and_nohup_does_not():
    before = signal.getsignal(signal.SIGHUP)
    try:
        signals = StopSignals()
        signals.install()
        for _ in range(2):  # the system sends one, and the shell another
            os.kill(os.getpid(), signal.SIGHUP)
        assert signals.received is signal.SIGHUP
        signals.restore()
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signals = StopSignals()
        signals.install()
        os.kill(os.getpid(), signal.SIGHUP)
        assert signals.received is None
        signals.restore()
    finally:
        signal.signal(signal.SIGHUP, before)
