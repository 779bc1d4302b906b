"""Download a zipped data set, verify it, and unpack it atomically. Requires only the standard library."""

import argparse
import hashlib
import os
import shutil
import stat
import sys
import tempfile
import urllib.error
import urllib.request
import zipfile
from pathlib import Path, PurePosixPath

BASE_URL = "http://efrosgans.eecs.berkeley.edu/cyclegan/datasets"
NAMES = (
    "apple2orange",
    "cezanne2photo",
    "horse2zebra",
    "iphone2dslr_flower",
    "monet2photo",
    "summer2winter_yosemite",
    "ukiyoe2photo",
    "vangogh2photo",
)


class DownloadError(Exception):
    """An error with a message of one line."""


def main() -> int:
    options = parse()
    target = options.folder / options.name
    if target.exists():
        print(f"{target} is there already")
        return 0
    try:
        options.folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=options.folder, prefix=".download-") as folder:
            archive = Path(folder, "archive.zip")
            fetch(f"{options.url.rstrip('/')}/{options.name}.zip", archive, options.sha256)
            unpack(archive, Path(folder, "unpacked"))
            layout(Path(folder, "unpacked"), options.name).rename(target)
    except (DownloadError, OSError) as error:
        print(f"download_dataset: error: {error}", file=sys.stderr)
        return 1
    counts = {d.name: sum(1 for _ in d.iterdir()) for d in sorted(target.iterdir()) if d.is_dir()}
    print(f"{target}: " + ", ".join(f"{name} {count}" for name, count in counts.items()))
    return 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/download_dataset.sh", description=__doc__)
    parser.add_argument("name", help=f"one of {', '.join(NAMES)}, or any NAME.zip at --url")
    parser.add_argument(
        "--url",
        default=os.environ.get("CYCLESTYLE_DATASETS_URL", BASE_URL),
        help="URL of the folder of NAME.zip; also set by CYCLESTYLE_DATASETS_URL (default %(default)s)",
    )
    parser.add_argument("--folder", type=Path, default=Path("datasets"), help="where to unpack (default %(default)s)")
    parser.add_argument("--sha256", help="expected SHA-256 of the archive")
    options = parser.parse_args()
    if options.name != PurePosixPath(options.name).name or options.name.startswith("."):
        parser.error(f"{options.name} is not the name of a data set")
    return options


def fetch(url: str, archive: Path, sha256: str | None) -> None:
    """Download to `archive`, and verify the length and, if given, the SHA-256."""
    digest = hashlib.sha256()
    received = 0
    try:
        with urllib.request.urlopen(url, timeout=60) as response, archive.open("wb") as file:
            announced = int(response.headers.get("Content-Length") or 0)
            while chunk := response.read(1 << 20):
                file.write(chunk)
                digest.update(chunk)
                received += len(chunk)
                show(received, announced)
    except urllib.error.URLError as error:
        reason = f"HTTP {error.code}" if isinstance(error, urllib.error.HTTPError) else error.reason
        raise DownloadError(f"cannot fetch {url}: {reason}; set another URL with --url") from error
    if announced and received != announced:
        raise DownloadError(f"{url} broke off after {received} of {announced} bytes; try again")
    if sha256 and digest.hexdigest() != sha256.lower():
        raise DownloadError(f"{url} has SHA-256 {digest.hexdigest()}, not {sha256}")


def show(received: int, announced: int) -> None:
    if sys.stderr.isatty():
        total = f" of {announced / 1e6:.0f}" if announced else ""
        print(f"\r{received / 1e6:.0f}{total} MB", end="", file=sys.stderr, flush=True)


def unpack(archive: Path, folder: Path) -> None:
    """Unpack regular files and folders. Links and paths outside `folder` raise an error."""
    try:
        with zipfile.ZipFile(archive) as opened:
            for member in opened.infolist():
                path = PurePosixPath(member.filename.replace("\\", "/"))
                if path.is_absolute() or ".." in path.parts or ":" in path.parts[0]:
                    raise DownloadError(f"refused: the archive's member {member.filename} would leave the folder")
                if stat.S_ISLNK(member.external_attr >> 16):
                    raise DownloadError(f"refused: the archive's member {member.filename} is a link")
            if (bad := opened.testzip()) is not None:
                raise DownloadError(f"the archive is damaged at {bad}; try again")
            opened.extractall(folder)
    except zipfile.BadZipFile as error:
        raise DownloadError("the downloaded file is not a zip archive; check the name and --url") from error


def layout(folder: Path, name: str) -> Path:
    """Return the folder of the splits: the root of the archive, or the folder `name` in it."""
    shutil.rmtree(folder / "__MACOSX", ignore_errors=True)
    for candidate in (folder / name, folder):
        if (candidate / "trainA").is_dir() and (candidate / "trainB").is_dir():
            return candidate
    raise DownloadError(f"the archive of {name} has no folders trainA and trainB")


if __name__ == "__main__":
    sys.exit(main())
