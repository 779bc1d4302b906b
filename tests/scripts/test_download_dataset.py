import hashlib
import io
import os
import subprocess
import threading
import zipfile
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "download_dataset.sh"


def archive(members, *, link=False):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, content in members.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = (0o120777 if link else 0o100644) << 16
            file.writestr(info, content)
    return buffer.getvalue()


GOOD = archive({"toy/trainA/1.jpg": b"a", "toy/trainA/2.jpg": b"b", "toy/trainB/1.jpg": b"c", "__MACOSX/x": b""})


class Handler(SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass

    def send_header(self, keyword, value):
        if keyword == "Content-Length" and "short" in self.path:
            value = str(int(value) + 1000)
        super().send_header(keyword, value)


@pytest.fixture
def server(tmp_path):
    """A folder, and the address at which it is served."""
    folder = tmp_path / "served"
    folder.mkdir()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder))) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{http.server_port}"
        http.shutdown()


def download(*words, cwd, **environment):
    command = [str(SCRIPT), *words]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, env={**os.environ, **environment})


def files(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_a_data_set_is_fetched_checked_and_unpacked(server, tmp_path):
    served, url = server
    (served / "toy.zip").write_bytes(GOOD)
    digest = hashlib.sha256(GOOD).hexdigest()
    result = download("toy", "--sha256", digest, cwd=tmp_path, CYCLESTYLE_DATASETS_URL=url)
    assert result.returncode == 0, result.stderr
    assert "trainA 2, trainB 1" in result.stdout
    assert files(tmp_path / "datasets") == ["toy/trainA/1.jpg", "toy/trainA/2.jpg", "toy/trainB/1.jpg"]
    assert "is there already" in download("toy", "--url", url, cwd=tmp_path).stdout


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("out", archive({"out/trainA/x": b"", "../escaped.txt": b"!"}), "../escaped.txt would leave the folder"),
        ("abs", archive({"/tmp/escaped.txt": b"!"}), "would leave the folder"),
        ("win", archive({"..\\escaped.txt": b"!"}), "would leave the folder"),
        ("link", archive({"link/trainA": b"/etc"}, link=True), "is a link"),
        ("page", b"<html>moved</html>", "not a zip archive; check the name"),
        ("short", GOOD, "broke off after"),
        ("bare", archive({"bare/photos/x.jpg": b""}), "has no folders trainA and trainB"),
        ("damaged", GOOD.replace(b"\x61", b"\x62", 1).replace(b"trainA/1.jpga", b"trainA/1.jpgx"), "damaged"),
        ("missing", None, "HTTP 404"),
    ],
)
def test_what_is_wrong_leaves_nothing_behind(server, tmp_path, name, content, message):
    served, url = server
    if content is not None:
        (served / f"{name}.zip").write_bytes(content)
    result = download(name, "--url", url, cwd=tmp_path)
    assert result.returncode == 1
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert files(tmp_path / "datasets") == []
    assert not list(tmp_path.rglob("escaped.txt"))
    assert not Path("/tmp/escaped.txt").exists()


def test_wrong_digest_and_wrong_names_are_refused(server, tmp_path):
    served, url = server
    (served / "toy.zip").write_bytes(GOOD)
    result = download("toy", "--url", url, "--sha256", "0" * 64, cwd=tmp_path)
    assert result.returncode == 1
    assert "has SHA-256" in result.stderr
    assert download("../toy", "--url", url, cwd=tmp_path).returncode == 2
    assert files(tmp_path / "datasets") == []
