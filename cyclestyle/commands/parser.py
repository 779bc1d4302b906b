"""What the commands share: a parser and a context that turn mistakes into one line."""

import logging
import re
import warnings
from argparse import ArgumentError
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning.cli import LightningArgumentParser

from cyclestyle.errors import CycleStyleError


class Parser(LightningArgumentParser):
    """Reports an unknown key or a wrong type in one line, without the usage text."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise a CycleStyleError that names the option and what is wrong with it."""
        raise CycleStyleError(_one_line(message)) from ex


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Turn the mistakes that libraries report in their own ways into a CycleStyleError."""
    try:
        yield
    except CycleStyleError as error:
        raise CycleStyleError(_without_worker_traceback(str(error))) from error
    except (MisconfigurationException, ArgumentError) as error:
        raise CycleStyleError(_one_line(str(error))) from error


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
    # Lightning 2.6 with PyTorch 2.15 calls a function that is being renamed.
    warnings.filterwarnings("ignore", message=r".isinstance\(treespec, LeafSpec\). is deprecated")
    # A short epoch is no mistake: rows are written every `log_every_n_steps` across epochs.
    warnings.filterwarnings("ignore", message="The number of training batches")


def _one_line(message: str) -> str:
    """Join a message's lines, which jsonargparse and Lightning wrap and indent."""
    return re.sub(r"\s+", " ", message).strip()


def _without_worker_traceback(message: str) -> str:
    """The error itself, where PyTorch's loader has put the worker's whole traceback around it."""
    if not message.startswith("Caught "):
        return message
    return re.sub(r"^[\w.]+Error: ", "", message.strip().splitlines()[-1])
