"""Generators of the original CycleGAN release, known by name and downloaded at first use."""

import hashlib
import json
import os
import re
import shutil
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from difflib import get_close_matches
from http.client import HTTPException, HTTPMessage
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from cyclestyle import files
from cyclestyle.errors import CheckpointError
from cyclestyle.files import cache_folder

PREFIX = "official:"
BASE_URL = "https://efrosgans.eecs.berkeley.edu/cyclegan/pretrained_models"
"""Where the release of https://github.com/junyanz/pytorch-CycleGAN-and-pix2pix is, unless `CYCLESTYLE_MODELS_URL` says
another address, or a folder."""
NAMES = (
    *("apple2orange", "orange2apple", "horse2zebra", "zebra2horse", "monet2photo"),
    *("style_monet", "style_cezanne", "style_ukiyoe", "style_vangogh"),
    *("summer2winter_yosemite", "winter2summer_yosemite", "iphone2dslr_flower"),
    *("sat2map", "map2sat", "cityscapes_photo2label", "cityscapes_label2photo"),
    *("facades_photo2label", "facades_label2photo"),
)
"""The names of `scripts/download_cyclegan_model.sh` in the original implementation."""
LARGEST = 1 << 30
"""Bytes of the largest file that is taken; those of the release have 45 MB."""
TIMEOUT = 60.0

OnBytes = Callable[[int, int], None]
"""Called with the bytes that are there, and their total; 0 if the total is unknown."""


def models_folder() -> Path:
    """Return where downloaded models are kept: `models` in the cache folder."""
    return cache_folder() / "models"


def known_path(name: str) -> Path:
    """Return where the file of a model is, or will be."""
    return models_folder() / f"{name}.pth"


def fetch(name: str, on_bytes: OnBytes = lambda received, total: None) -> Path:
    """Return the file of a model of the original release, which is downloaded at first use.

    A download that was cut off goes on where it stopped. The size and the SHA-256 of the file are recorded with it, and
    checked at every later use. No network is needed then.

    Args:
        name: one of `NAMES`.
        on_bytes: called during the download.

    Raises:
        CheckpointError: the name is unknown, the file cannot be downloaded, or it has changed since its first use.
        CycleStyleError: the cache cannot be written.
    """
    if name not in NAMES:
        close = get_close_matches(name, NAMES, n=1)
        hint = f"; did you mean {PREFIX}{close[0]}?" if close else ";"
        raise CheckpointError(f"there is no official model {name!r}{hint} `cyclestyle models` lists them")
    path = known_path(name)
    record = path.with_suffix(".json")
    if path.is_file() and record.is_file():
        _check(path, record)
        return path
    base = os.environ.get("CYCLESTYLE_MODELS_URL") or BASE_URL
    if "://" not in base and not Path(base, f"{name}.pth").is_file():
        raise CheckpointError(
            f"CYCLESTYLE_MODELS_URL is {base}, which is no folder with {name}.pth; set it to one, or to an address"
        )
    url = f"{base.rstrip('/')}/{name}.pth"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with files.locked(path.parent):
            part = path.with_suffix(".part")
            if Path(base).is_dir():
                shutil.copyfile(Path(base, f"{name}.pth"), part)
            else:
                _download(url, part, on_bytes)
            _check_content(part, url)
            content = {"url": url, "bytes": part.stat().st_size, "sha256": _sha256(part)}
            part.replace(path)
            files.write_json(record, content)
    except (OSError, HTTPException) as error:
        if isinstance(error, urllib.error.HTTPError) and 300 <= error.code < 400:  # what urllib itself refuses
            _check_scheme(str(error.headers.get("Location")), url)
        raise CheckpointError(
            f"cannot download {url}: {_reason(error)}; the same command goes on with it, or set CYCLESTYLE_MODELS_URL "
            "to a folder that has the file"
        ) from error
    return path


def _download(url: str, part: Path, on_bytes: OnBytes) -> None:
    """Download into a file, from where it ends."""
    _check_scheme(url)
    version = part.with_name(f"{part.name}.version")  # the ETag or date of the file that is being downloaded
    begun = part.stat().st_size if part.is_file() and version.is_file() else 0
    headers = {"Range": f"bytes={begun}-", "If-Range": version.read_text()} if begun else {}
    headers["Accept-Encoding"] = "identity"
    opener = urllib.request.OpenerDirector()  # without the handlers of file:, ftp: and data:
    for handler in (
        *(urllib.request.ProxyHandler(), urllib.request.HTTPHandler(), urllib.request.HTTPSHandler()),
        *(urllib.request.HTTPDefaultErrorHandler(), urllib.request.HTTPErrorProcessor(), _Redirects()),
    ):
        opener.add_handler(handler)
    with opener.open(urllib.request.Request(url, headers=headers), timeout=TIMEOUT) as answer:
        if answer.status != 206 or not str(answer.headers.get("Content-Range", "")).startswith(f"bytes {begun}-"):
            begun = 0  # the server sends it from its beginning
        left = int(answer.headers.get("Content-Length") or 0)
        total = begun + left if left else 0
        if total > LARGEST:
            raise CheckpointError(f"{url} has {total / 1e6:.0f} MB, which no model of the release has")
        same = answer.headers.get("ETag") or answer.headers.get("Last-Modified")
        version.write_text(same) if same else version.unlink(missing_ok=True)
        with part.open("ab" if begun else "wb") as file:
            received = begun
            while chunk := answer.read(1 << 18):
                file.write(chunk)
                received += len(chunk)
                on_bytes(received, total)
                if received > LARGEST:
                    raise CheckpointError(f"{url} does not end, which no model of the release does")
    if total and received != total:
        raise OSError(f"it broke off after {received} of {total} bytes")
    version.unlink(missing_ok=True)


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirections to the web alone, and none from https to http."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        _check_scheme(newurl, req.full_url)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _check_scheme(url: str, source: str | None = None) -> None:
    scheme = urlsplit(url).scheme.lower()
    downgraded = source is not None and urlsplit(source).scheme.lower() == "https" and scheme != "https"
    if scheme not in ("http", "https") or downgraded:
        where = f"{source} leads to {url}" if source else url
        raise CheckpointError(f"{where}, but only http and https addresses, and folders, are allowed")


def _check_content(part: Path, url: str) -> None:
    """Check that a download is a generator of the original implementation; another file is removed."""
    # Imported here, because `cyclestyle models` lists names without torch.
    from cyclestyle.weights.checkpoints import read_checkpoint
    from cyclestyle.weights.foreign import find

    try:
        find(read_checkpoint(part), part)
    except CheckpointError as error:
        part.unlink(missing_ok=True)
        raise CheckpointError(
            f"{url} is no generator of the original CycleGAN; set CYCLESTYLE_MODELS_URL to a folder that has it"
        ) from error


def _check(path: Path, record: Path) -> None:
    """Check the size and the hash that were recorded at first use."""
    recorded: dict[str, Any] = {}
    with suppress(ValueError):
        recorded = json.loads(record.read_text())
    if path.stat().st_size != recorded.get("bytes") or _sha256(path) != recorded.get("sha256"):
        raise CheckpointError(f"{path} has changed since it was downloaded; remove it to download it again")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _reason(error: Exception) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f"HTTP {error.code}"
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    return re.sub(r"\s+", " ", str(reason)) or type(error).__name__


def is_known(word: str) -> bool:
    """Return whether a checkpoint is named as a model of the original release."""
    return word.startswith(PREFIX)
