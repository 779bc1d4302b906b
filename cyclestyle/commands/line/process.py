"""What a command does to its own process: warnings, compiled code, and folders that it will write into."""

import logging
import os
import warnings
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from cyclestyle.errors import CycleStyleError
from cyclestyle.files import cache_folder, remove_unfinished

_HINTS = (
    *("Tip", "available: False", "Seed set to", "Restor", "stopped: `max_", "Loaded model weights"),
    *("Initializing distributed", "distributed_backend"),
)
"""Parts of log messages of Lightning that are advertisement, or say nothing."""


def quiet() -> None:
    """Hide hints and warnings of Lightning that tell a user of these commands nothing."""
    for name in ("lightning.pytorch", "pytorch_lightning", "lightning_fabric"):
        for handler in logging.getLogger(name).handlers + logging.getLogger(f"{name}.utilities.rank_zero").handlers:
            handler.addFilter(lambda record: not any(hint in record.getMessage() for hint in _HINTS))
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # it misses a GPU, on machines without one
    logging.getLogger("PIL").setLevel(logging.CRITICAL)  # what is wrong with a file is in the error that follows
    warnings.filterwarnings("ignore", module=r"PIL\.")
    warnings.formatwarning = _one_line_warning
    # The dispatcher removes the name of the command, so LightningCLI gets its words as an argument.
    warnings.filterwarnings("ignore", message="LightningCLI's args parameter is intended")
    # `data.workers` documents how many loader workers pay off; its default leaves one core to training.
    warnings.filterwarnings("ignore", message="The '.*_dataloader' does not have many workers")
    # `best` goes by a figure of validation, which a short run does not reach.
    warnings.filterwarnings("ignore", message=r".ModelCheckpoint\(monitor=.*could not find the monitored key")
    # `Evaluation` has combined the figures of all processes already.
    warnings.filterwarnings("ignore", message="It is recommended to use .self.log")
    # `--ckpt_path last` both starts and resumes a run.
    warnings.filterwarnings("ignore", message=r"\.fit\(ckpt_path=.last.\) is set, but there is no last checkpoint")
    # A folder that holds a run is refused unless the run is resumed, and then its files are expected.
    warnings.filterwarnings("ignore", message="Checkpoint directory .* exists and is not empty")
    # Lightning 2.6 with PyTorch 2.15 calls a function that is being renamed.
    warnings.filterwarnings("ignore", message=r".isinstance\(treespec, LeafSpec\). is deprecated")
    # `test` needs none of the callbacks that training had.
    warnings.filterwarnings("ignore", message="Be aware that when using `ckpt_path`")
    # A short epoch is no mistake: rows are written every `log_every_n_steps` across epochs.
    warnings.filterwarnings("ignore", message="The number of training batches")


def _one_line_warning(message: Warning | str, *_: object, **__: object) -> str:
    return f"cyclestyle: warning: {' '.join(str(message).split())}\n"


def keep_compiled_code() -> None:
    """Let PyTorch keep compiled networks in the cache folder, between runs; its own default is a temporary folder.

    It must be called before torch is imported, because torch asks for the folder then. Where the folder cannot be
    made, and where the user has set the variable, nothing is changed.
    """
    folder = cache_folder() / "compiled"
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(folder))


def ensure_writable(folder: Path) -> None:
    """Create the folder, check that it can be written, before any work is done, and clear what killed runs left there.

    Raises:
        CycleStyleError: it cannot.
    """
    probe = folder / ".writable"
    if folder.exists() and not folder.is_dir():
        raise CycleStyleError(f"{folder} is a file; name a folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink(missing_ok=True)
        remove_unfinished(folder)
    except OSError as error:
        raise CycleStyleError(f"cannot write into {folder}: {error.strerror}; choose another folder") from error


def ensure_writable_file(path: str | Path) -> Path:
    """Check that a file can be written, before any work is done, and return its path.

    Raises:
        CycleStyleError: its folder cannot be written, or the path is a folder.
    """
    path = Path(path)
    if path.is_dir():
        raise CycleStyleError(f"{path} is a folder; name a file")
    ensure_writable(path.parent)
    return path


def refuse_input_as_output(outputs: Iterable[Path], inputs: Iterable[Path]) -> None:
    """Refuse to write a file over an input, or a folder that is one.

    Raises:
        CycleStyleError: an output is an input, or a file that exists in an input folder.
    """
    for output in outputs:
        for given in inputs:
            same = output.resolve() == given.resolve()
            if same or (output.is_file() and output.resolve().is_relative_to(given.resolve())):
                raise CycleStyleError(f"the output {output} is an input; choose another path for it")


def number_of(count: int, noun: str) -> str:
    """Return a count with its noun: `1 image`, `2 images`."""
    return f"{count} {noun}{'' if count == 1 else 's'}"
