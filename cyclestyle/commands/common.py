"""What the commands share: a parser and a context that turn mistakes into one line."""

import ctypes
import errno
import logging
import re
import sys
import warnings
from argparse import ArgumentError, ArgumentTypeError
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import NoReturn

import torch
import yaml
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning.cli import LightningArgumentParser

from cyclestyle.errors import CycleStyleError, DivergedError, StoppedError

_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)  # what a disk does, rather than a program

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h, in bytes


class Parser(LightningArgumentParser):
    """Reports an unknown key or a wrong type in one line, without the usage text."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise a CycleStyleError that names the option and what is wrong with it."""
        raise CycleStyleError(one_line(message)) from ex


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Turn the mistakes that libraries report in their own ways into a CycleStyleError."""
    try:
        yield
    except (StoppedError, DivergedError):
        raise
    except CycleStyleError as error:
        raise CycleStyleError(_without_worker_traceback(str(error))) from error
    except (MisconfigurationException, ArgumentError, ArgumentTypeError) as error:
        raise CycleStyleError(one_line(str(error))) from error
    except torch.OutOfMemoryError as error:
        raise CycleStyleError(
            "the GPU's memory is full; lower the batch size, data.crop_size, or for Gatys model.tile"
        ) from error
    except OSError as error:
        if error.errno not in _DISK:
            raise
        where = error.filename or "a file of the run"
        raise CycleStyleError(f"cannot write {where}: {error.strerror}; make room, then resume") from error


def check_configs(args: Sequence[str]) -> None:
    """Name the config that is no YAML, which the parser's own message does not.

    Raises:
        CycleStyleError: a file given by --config or -c cannot be parsed.
    """
    joined = [word for arg in args for word in arg.split("=", 1)]
    for option, path in pairwise(joined):
        if option in ("--config", "-c") and Path(path).is_file():
            try:
                yaml.safe_load(Path(path).read_text())
            except (yaml.YAMLError, UnicodeDecodeError) as error:
                raise CycleStyleError(f"{path} is no valid YAML: {one_line(str(error))}") from error


def quiet() -> None:
    """Silence what Lightning says for its own sake."""
    for name in ("lightning.pytorch", "pytorch_lightning", "lightning_fabric"):
        for handler in logging.getLogger(name).handlers + logging.getLogger(f"{name}.utilities.rank_zero").handlers:
            handler.addFilter(lambda record: "Tip" not in record.getMessage())
    # The first word is taken off by our own dispatcher, so LightningCLI gets its words as an argument.
    warnings.filterwarnings("ignore", message="LightningCLI's args parameter is intended")
    # How many loader workers pay off is said by `data.workers`; its default leaves a core to training.
    warnings.filterwarnings("ignore", message="The '.*_dataloader' does not have many workers")
    # `--ckpt_path last` is how a run is started and resumed alike.
    warnings.filterwarnings("ignore", message=r"\.fit\(ckpt_path=.last.\) is set, but there is no last checkpoint")
    # A folder that holds a run is refused unless the run is resumed, and then its files are expected.
    warnings.filterwarnings("ignore", message="Checkpoint directory .* exists and is not empty")
    # Lightning 2.6 with PyTorch 2.15 calls a function that is being renamed.
    warnings.filterwarnings("ignore", message=r".isinstance\(treespec, LeafSpec\). is deprecated")
    # `test` needs none of the callbacks that training had.
    warnings.filterwarnings("ignore", message="Be aware that when using `ckpt_path`")
    # A short epoch is no mistake: rows are written every `log_every_n_steps` across epochs.
    warnings.filterwarnings("ignore", message="The number of training batches")


def keep_memory() -> None:
    """Let the process keep the memory of large activations instead of asking for it anew in every layer.

    By default glibc gives it back at once, and a fifth of the time goes into fetching it again. Elsewhere than on Linux
    with glibc nothing is done.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, 2**30)
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


def ensure_writable(folder: Path) -> None:
    """Make the folder, and find out before any work is done whether it can be written.

    Raises:
        CycleStyleError: it cannot.
    """
    probe = folder / ".writable"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink(missing_ok=True)
    except OSError as error:
        raise CycleStyleError(f"cannot write into {folder}: {error.strerror}; choose another folder") from error


def one_line(message: str) -> str:
    """Join a message's lines, and of jsonargparse's nested reports keep the option and the innermost complaint."""
    message = re.sub(r"\s+", " ", message).strip()
    options = re.findall(r'Parser key "([^"]+)": ', message)
    if not options and "Errors: - " not in message:
        return message
    complaint, _, value = re.split(r'Errors: - |Parser key "[^"]+": ', message)[-1].partition(" Given value type: ")
    complaint = complaint.replace("- Expected a <class 'NoneType'>", "").strip()
    complaint = complaint.replace("Expected a typing.Literal", "Expected one of ")
    complaint = re.sub(r"a <class '(?:\w+\.)*(\w+)'>", r"\1", complaint)
    if inner := re.match(r"(\w+): ", complaint):  # an option that a parser inside the parser has named
        options, complaint = [*options, inner[1]], complaint[inner.end() :]
    value = re.sub(r"^.*?Given value: ", "", value).split(" - Expected a ")[0]
    got = f", got {value}" if value and not value.startswith(("NestedArg(", "Namespace(")) else ""
    return ": ".join(filter(None, [".".join(options), complaint + got]))


def _without_worker_traceback(message: str) -> str:
    """The error itself, where PyTorch's loader has put the worker's whole traceback around it."""
    if not message.startswith("Caught "):
        return message
    return re.sub(r"^[\w.]+Error: ", "", message.strip().splitlines()[-1])
