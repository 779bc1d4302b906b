"""Models known by name, from a server on this machine that is slow, breaks off, or answers with something else."""

import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch

from cyclestyle.errors import CheckpointError
from cyclestyle.networks import build_generator
from cyclestyle.translation.opening import open_method
from cyclestyle.weights import known
from cyclestyle.weights.checkpoints import write_checkpoint


class Handler(BaseHTTPRequestHandler):
    """Serves `content` in the way that `how` says, and notes the ranges that are asked for."""

    protocol_version = "HTTP/1.0"

    def log_message(self, *args):
        pass

    def do_GET(self):
        server = self.server
        server.asked.append(self.headers.get("Range"))
        if server.how.startswith("redirect "):
            self.send_response(302)
            self.send_header("Location", server.how.removeprefix("redirect "))
            self.end_headers()
            return
        if server.how == "missing":
            self.send_error(404)
            return
        content, start = server.content, 0
        if (asked := self.headers.get("Range")) and self.headers.get("If-Range") == server.version:
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("ETag", server.version)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        left = content[start:]
        self.wfile.write(left[: len(left) // 2] if server.how == "cut" else left)


@pytest.fixture
def server(tmp_path, monkeypatch):
    weights = tmp_path / "weights.pth"
    torch.manual_seed(0)
    write_checkpoint(build_generator("resnet6", ngf=2).state_dict(), weights)
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        http.content, http.how, http.version, http.asked = weights.read_bytes(), "whole", '"1"', []
        threading.Thread(target=http.serve_forever, daemon=True).start()
        monkeypatch.setenv("CYCLESTYLE_MODELS_URL", f"http://127.0.0.1:{http.server_port}/models/")
        monkeypatch.setenv("CYCLESTYLE_CACHE", str(tmp_path / "cache"))
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        yield http
        http.shutdown()


def test_a_model_is_downloaded_once_and_used_offline(server, cyclestyle, monkeypatch):
    seen = []
    path = known.fetch("style_monet", lambda *given: seen.append(given))
    assert path.read_bytes() == server.content
    assert seen[-1] == (len(server.content), len(server.content))
    monkeypatch.setenv("CYCLESTYLE_MODELS_URL", "http://127.0.0.1:9")  # nobody listens there
    assert type(open_method("official:style_monet")).__name__ == "GeneratorOnly"
    assert len(server.asked) == 1
    out = cyclestyle("models")[1]
    assert "official:style_monet" in out
    assert "downloaded" in out.splitlines()[known.NAMES.index("style_monet")]
    assert "not downloaded" in out


def test_a_download_that_was_cut_off_goes_on(server):
    server.how = "cut"
    with pytest.raises(CheckpointError, match="the same command goes on"):
        known.fetch("style_monet")
    assert not known.known_path("style_monet").exists()
    server.how = "whole"
    assert known.fetch("style_monet").read_bytes() == server.content
    assert server.asked == [None, f"bytes={len(server.content) // 2}-"]


def test_another_file_under_the_same_name_is_downloaded_from_its_beginning(server):
    server.how = "cut"
    with pytest.raises(CheckpointError):
        known.fetch("style_monet")
    server.how, server.version = "whole", '"2"'
    assert known.fetch("style_monet").read_bytes() == server.content


@pytest.mark.parametrize(
    ("how", "text"),
    [
        ("missing", "HTTP 404"),
        ("redirect file:///etc/passwd", "only http and https addresses"),
        ("redirect ftp://127.0.0.1/x", "only http and https addresses"),
    ],
)
def test_what_is_no_model_is_told(server, how, text):
    server.how = how
    with pytest.raises(CheckpointError, match=text) as caught:
        known.fetch("style_monet")
    assert "\n" not in str(caught.value)
    assert not known.known_path("style_monet").exists()


def test_a_folder_takes_the_place_of_the_address(server, tmp_path, monkeypatch):
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "style_monet.pth").write_bytes(server.content)
    monkeypatch.setenv("CYCLESTYLE_MODELS_URL", str(tmp_path / "models"))
    assert known.fetch("style_monet").read_bytes() == server.content
    monkeypatch.setenv("CYCLESTYLE_MODELS_URL", "nowhere")
    with pytest.raises(CheckpointError, match=r"URL is nowhere, which is no folder with style_cezanne\.pth; set it"):
        known.fetch("style_cezanne")
    assert not server.asked


def test_a_page_in_place_of_a_model_is_told_and_removed(server):
    server.content = b"<html>moved</html>"
    with pytest.raises(CheckpointError, match="is no generator of the original CycleGAN"):
        known.fetch("style_monet")
    assert not [path for path in known.models_folder().iterdir() if path.suffix in (".pth", ".part")]


def test_a_changed_file_and_an_unknown_name_are_told(server):
    path = known.fetch("style_monet")
    content = path.read_bytes()
    path.write_bytes(content[:-1] + b"x")
    with pytest.raises(CheckpointError, match="has changed since it was downloaded"):
        known.fetch("style_monet")
    assert hashlib.sha256(content).hexdigest() in path.with_suffix(".json").read_text()
    with pytest.raises(CheckpointError, match="`cyclestyle models` lists them"):
        known.fetch("../style_monet")
    with pytest.raises(CheckpointError, match="did you mean official:style_monet"):
        known.fetch("style_mone")
