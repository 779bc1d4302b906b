"""`demo`: a page in the browser on which images are translated."""

import errno
import os
import signal
import socket
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from cyclestyle.commands.demo.studio import Limits, Studio
from cyclestyle.commands.line.parser import call
from cyclestyle.data.sample import sample_image
from cyclestyle.errors import CycleStyleError
from cyclestyle.images import MODES
from cyclestyle.images.folders import find_images_in
from cyclestyle.scratch import parse_bytes
from cyclestyle.speed.memory import keep_memory
from cyclestyle.speed.setup import choose_device
from cyclestyle.translation.opening import open_method
from cyclestyle.translator import Translator
from cyclestyle.weights.shipped import SHIPPED


def demo(
    *,
    ckpt_path: list[str] | None = None,
    title: str = "cyclestyle",
    domains: list[str] | None = None,
    styles: list[str] | None = None,
    host: str = "127.0.0.1",
    port: int | None = None,
    password: str | None = None,
    device: str | None = None,
    max_upload: str = "20MB",
    max_megapixels: float = 24.0,
    max_frames: int = 600,
    max_waiting: int = 16,
) -> int:
    """Serve a page on which images are translated in the browser, until it is stopped with Ctrl-C.

    Args:
        ckpt_path: checkpoints, folders of runs or exported files to choose from; default the models of the package.
        title: title of the page.
        domains: names of the domains A and B, such as photo painting; default A and B.
        styles: example style images, or folders of them, for methods that take one; default drawn paintings.
        host: address to listen at; 0.0.0.0 lets other machines in.
        port: port to listen at; default the first free one from 7860.
        password: what visitors have to enter, with any name.
        device: where images are translated, such as cpu or cuda:1; default the GPU if there is one.
        max_upload: largest file of a visitor.
        max_megapixels: largest image of a visitor.
        max_frames: frames of the longest video of a visitor.
        max_waiting: requests that may wait; more are refused.
    """
    if not max_megapixels > 0 or max_waiting < 1 or max_frames < 1:
        raise CycleStyleError("max_megapixels, max_frames and max_waiting must be above 0")
    if domains is not None and len(domains) != 2:
        raise CycleStyleError(f"--domains are the names of A and B, such as photo painting, got {' '.join(domains)}")
    check_address(host, port)
    examples = None if styles is None else find_images_in([Path(style) for style in styles])
    try:
        upload = parse_bytes(max_upload)
    except ValueError as error:
        raise CycleStyleError(f"max_upload: {error}") from error
    keep_memory()
    with tempfile.TemporaryDirectory(prefix="cyclestyle-demo-") as folder:
        studio = load_studio(ckpt_path or list(SHIPPED), Path(folder), max_megapixels, max_frames, device)
        os.environ["GRADIO_TEMP_DIR"] = os.path.join(folder, "uploads")
        from cyclestyle.commands.demo.page import Look, build_page, launch  # imports Gradio, which takes seconds

        look = Look(title=title, domains=tuple(domains or ("A", "B")), styles=examples or drawn_styles(Path(folder)))
        page = build_page(studio, look, waiting=max_waiting)
        address = launch(page, host=host, port=port, password=password, upload=f"{upload}b")
        with _signals() as stopped:
            print(f"serving {', '.join(studio.translators)} at {address} (stop with Ctrl-C)", flush=True)
            while not stopped:
                time.sleep(0.2)
        page.close(verbose=False)
    return 0


def drawn_styles(folder: Path) -> list[Path]:
    """Draw style images of the sample domains, and return their files."""
    files = [folder / "styles" / f"{number}.png" for number in range(3)]
    files[0].parent.mkdir()
    for number, file in enumerate(files):
        sample_image(number, 256, painted=True).save(file)
    return files


def check_address(host: str, port: int | None) -> None:
    """Check, before networks are loaded, that the page can be served at an address.

    Raises:
        CycleStyleError: the host is none of this machine, or the port is out of range or in use.
    """
    if port is not None and not 1 <= port <= 65535:
        raise CycleStyleError(f"port must be from 1 to 65535, got {port}")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port or 0, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port that has just been left is free
            probe.bind(address)
    except (OSError, UnicodeError) as error:
        if getattr(error, "errno", None) in (errno.EADDRINUSE, errno.EACCES):
            raise CycleStyleError(f"cannot listen at {host}:{port}: choose another --port") from error
        raise CycleStyleError(
            f"cannot listen at {host}, which is no address of this machine; --host 0.0.0.0 stands for all of them"
        ) from error


def load_studio(
    paths: Sequence[str], folder: Path, megapixels: float, frames: int, device: str | None = None
) -> Studio:
    """Load checkpoints, each under the shortest name that tells it from the others.

    Raises:
        CheckpointError: one cannot be loaded.
        CycleStyleError: the same is named twice; or the device does not exist.
    """
    if len(set(paths)) < len(paths):
        raise CycleStyleError("a checkpoint is named twice in --ckpt_path")
    names = _names(paths)
    place = choose_device(device)
    translators = {name: Translator(open_method(path), device=place) for name, path in zip(names, paths, strict=True)}
    for name, one in translators.items():
        if one.method.ranges or one.in_channels not in MODES:
            raise CycleStyleError(f"{name} translates numbers, which the page cannot show; use predict")
    for translator in translators.values():
        translator.choose_speed()
    checkpoints = dict(zip(names, paths, strict=True))
    return Studio(translators, checkpoints, folder, Limits(megapixels=megapixels, frames=frames))


def _names(paths: Sequence[str]) -> list[str]:
    """The last part of each path, or as many as it takes to tell them apart."""
    parts = [Path(path).with_suffix("").parts for path in paths]
    for length in range(1, max(map(len, parts)) + 1):
        names = ["/".join(one[-length:]) for one in parts]
        if len(set(names)) == len(names):
            return names
    return list(paths)


@contextmanager
def _signals() -> Iterator[list[int]]:
    """Collect the signals that end the process, so that the folder is removed; Ctrl-C ends the block."""
    stopped: list[int] = []
    previous = signal.signal(signal.SIGTERM, lambda number, _: stopped.append(number))
    try:
        yield stopped
    except KeyboardInterrupt:
        pass
    finally:
        signal.signal(signal.SIGTERM, previous)


def run(name: str, args: Sequence[str]) -> int:
    """Run `demo`."""
    return call(demo, name, args)
