"""Processes without the seconds of their imports: a server imports torch, Lightning and the package once, and forks.

What is asked of such a process, such as its exit status, its output or what a signal does, is what it would be of one
that was started anew. A process that is to show what it imports must be started anew.
"""

import atexit
import json
import os
import random
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
import types

PROGRAM = "from cyclestyle.cli import console; console()"
STREAMS = 3  # stdin, stdout and stderr
LONGEST = 2**17  # bytes of a request


class Forks:
    """The server, from the side of the tests.

    Args:
        folder: where the output of the processes is written.
    """

    def __init__(self, folder):
        self.folder = folder
        self._requests, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        command = [sys.executable, __file__, str(theirs.fileno())]
        self._server = subprocess.Popen(command, pass_fds=[theirs.fileno()], env={**os.environ, "OMP_NUM_THREADS": "1"})
        theirs.close()
        self._started = []

    def start(self, *words, code=PROGRAM, env=None, session=False):
        """Start the program, or other code, with `words` as its arguments.

        Args:
            words: the arguments.
            code: Python code.
            env: variables beside those of the test; None removes one.
            session: whether the process leads a session, and so a group, of its own.
        """
        request = {
            "words": [str(word) for word in words],
            "code": code,
            "environment": {name: text for name, text in {**os.environ, **(env or {})}.items() if text is not None},
            "folder": os.getcwd(),
            "session": session,
        }
        fork = Fork(self._requests, request, self.folder / str(len(self._started)))
        self._started.append(fork)
        return fork

    def run(self, *words, timeout=240, **options):
        """Start the program, and wait until it has ended."""
        fork = self.start(*words, **options)
        fork.wait(timeout)
        return fork

    def start_ranks(self, count, *words, env=None, **options):
        """Start several processes as torchrun does."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "TORCHELASTIC_RUN_ID": "0", "GROUP_RANK": "0"}
        common |= {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count), **(env or {})}
        ranks = [{**common, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(count)]
        return [self.start(*words, env=rank, **options) for rank in ranks]

    def run_ranks(self, count, *words, timeout=240, **options):
        """Start several processes as torchrun does, and wait until all have ended."""
        forks = self.start_ranks(count, *words, **options)
        for fork in forks:
            fork.wait(timeout)
        return forks

    def close(self):
        """End the server, and every process that still runs."""
        for fork in self._started:
            fork.kill()
        self._requests.close()
        self._server.wait()


class Fork:
    """One process; much like `subprocess.Popen`."""

    def __init__(self, requests, request, files):
        self._files = [files.with_suffix(end) for end in (".out", ".err")]
        self._status, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with open(os.devnull) as none, self._files[0].open("w") as out, self._files[1].open("w") as error:
            handles = [none.fileno(), out.fileno(), error.fileno(), theirs.fileno()]
            socket.send_fds(requests, [json.dumps(request).encode()], handles)
        theirs.close()
        self.pid = int(self._status.recv(64))
        self.returncode = None

    @property
    def stdout(self):
        """What the process has written so far."""
        return self._files[0].read_text()

    @property
    def stderr(self):
        """What the process has written so far."""
        return self._files[1].read_text()

    def poll(self):
        """Return the exit status, or None while the process runs."""
        return self.returncode if self.returncode is not None or not self._ended(0) else self.wait()

    def wait(self, timeout=240):
        """Return the exit status; that of a signal is negative."""
        if self.returncode is None:
            if not self._ended(timeout):
                os.kill(self.pid, signal.SIGKILL)
                raise TimeoutError(f"process {self.pid} did not end in {timeout} s:\n{self.stderr}")
            self.returncode = int(self._status.recv(64))
        return self.returncode

    def _ended(self, timeout):
        return bool(select.select([self._status], [], [], timeout)[0])

    def send_signal(self, number):
        """Send a signal to the process, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self):
        """Kill the process, and wait."""
        self.send_signal(signal.SIGKILL)
        return self.wait()


def wait_for(condition, process=None, timeout=120):
    """Wait until `condition()` is true. A process that ends before is an error."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert process is None or process.poll() is None, process.stderr
        assert time.monotonic() < deadline, f"nothing has happened in {timeout} s"
        time.sleep(0.01)


def serve(requests):
    """Fork for each request, until the tests end."""
    import cyclestyle.commands.fit.command
    import cyclestyle.commands.predict  # noqa: F401

    sys.path.pop(0)  # the folder of this file
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the processes that watch
    while True:
        message, handles, *_ = socket.recv_fds(requests, LONGEST, STREAMS + 1)
        if not message:
            os._exit(0)
        if os.fork() == 0:
            requests.close()
            watch(json.loads(message), handles[:STREAMS], socket.socket(fileno=handles[STREAMS]))
        for handle in handles:
            os.close(handle)


def watch(request, streams, replies):
    """Fork, and report the number of the process and, later, its exit status."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    child = os.fork()
    if child == 0:
        replies.close()
        run(request, streams)
    for stream in streams:
        os.close(stream)
    replies.send(str(child).encode())
    replies.send(str(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])).encode())
    os._exit(0)


def run(request, streams):
    """Run the code of a request as a new process would, and end."""
    if request["session"]:
        os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    random.seed()  # names of files and ports must not be those of another process
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    sys.path[:0] = ["", *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    sys.argv = ["cyclestyle", *request["words"]]
    main = sys.modules["__main__"] = types.ModuleType("__main__")
    status = 1
    try:
        exec(compile(request["code"], "<forked>", "exec"), vars(main))
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    threading._shutdown()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(status)


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
