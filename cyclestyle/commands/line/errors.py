"""The error contract of every command: a user's mistake is one line that names the thing and the remedy."""

import re
import sys
from argparse import ArgumentError, ArgumentTypeError
from collections.abc import Iterator
from contextlib import contextmanager

from cyclestyle.errors import DISK_ERRORS, CycleStyleError, DivergedError, StoppedError


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Turn the mistakes that libraries report in their own ways into a CycleStyleError."""
    try:
        yield
    except (StoppedError, DivergedError):
        raise
    except CycleStyleError as error:
        raise CycleStyleError(_without_worker_traceback(str(error))) from error
    except (
        *(ArgumentError, ArgumentTypeError),
        _imported("lightning_fabric.utilities.exceptions", "MisconfigurationException"),
    ) as error:
        raise CycleStyleError(one_line(str(error))) from error
    except _imported("torch", "OutOfMemoryError") as error:
        raise CycleStyleError(
            "the memory of the GPU is full; lower the batch size, data.crop_size, or for Gatys model.tile"
        ) from error
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("cyclestyle"):
            raise
        raise CycleStyleError(_missing_package(error)) from error
    except RuntimeError as error:
        if str(error).startswith("DataLoader worker (pid"):
            raise CycleStyleError(
                "a process that loads images was killed; if the memory was full, use fewer workers. The same command "
                "goes on, a training with --ckpt_path last"
            ) from error
        if not str(error).startswith("Early stopping conditioned on metric"):
            raise
        raise CycleStyleError(_missing_figure(str(error))) from error
    except OSError as error:
        if error.errno not in DISK_ERRORS:
            raise
        where = error.filename or "a file of the run"
        raise CycleStyleError(f"cannot write {where}: {error.strerror}; free some space, then resume") from error


def _imported(module: str, name: str) -> type[Exception]:
    """Return an exception of a library; where that has not been imported, one that is caught before."""
    found: type[Exception] = getattr(sys.modules.get(module), name, ArgumentError)
    return found


def one_line(message: str) -> str:
    """Join the lines of a message, and reduce nested reports of jsonargparse to the option and the innermost error."""
    message = re.sub(r"\s+", " ", message).strip()
    if wanted := re.search(r"Requirement '([\w-]+)[^']*' not met", message):  # of a logger or callback of Lightning
        return f"{wanted[1]} is not installed; `pip install {wanted[1]}` adds it"
    message = re.sub(r"\. Got value: ", ", got ", message)
    message = re.sub(r"Option '(\w+)' is not accepted", r"there is no option \1", message)
    if message == "the following arguments are required: fit.data, fit.model":
        message = "nothing to train: add --config cyclegan, or any other name that `cyclestyle configs` lists"
    if "Not a valid subclass of Task" in message and "{'init_args'" in message:  # settings without a class
        return "the config names no method: put it on top of one, as in --config cyclegan --config small_set"
    options = re.findall(r'Parser key "([^"]+)": ', message)
    if not options and "Errors: - " not in message:
        return message
    complaint, _, value = re.split(r'Errors: - |Parser key "[^"]+": ', message)[-1].partition(" Given value type: ")
    complaint = re.sub(r"(- )?Expected a <class 'NoneType'>( - (?=Expected))?", "", complaint).strip()
    complaint = complaint.replace("Expected a typing.Literal", "Expected one of ")
    complaint = re.sub(r"a <class '(?:\w+\.)*(\w+)'>", r"\1", complaint)
    complaint = re.sub(r"( - Expected (Iterable|bool))+$", "", complaint)  # what a logger may be beside a class
    if inner := re.match(r"(\w+): ", complaint):  # an option that a parser inside the parser has named
        options, complaint = [*options, inner[1]], complaint[inner.end() :]
    if missing := re.search(r"Expected a dot import path string: (\S+)", complaint):
        complaint, value = f"there is no class {missing[1]}", ""
    value = re.sub(r"^.*?Given value: ", "", value).split(" - Expected a ")[0]
    got = f", got {value}" if value and not value.startswith(("NestedArg(", "Namespace(")) else ""
    return ": ".join(filter(None, [".".join(options), complaint + got]))


def _without_worker_traceback(message: str) -> str:
    """The error itself, where PyTorch's loader has put the traceback of the worker around it."""
    if not message.startswith("Caught "):
        return message
    return re.sub(r"^[\w.]+Error: ", "", message.strip().splitlines()[-1])


def _missing_package(error: ModuleNotFoundError) -> str:
    """Say which package is missing; Lightning names it as a requirement of pip."""
    named = re.search(r"['`]([\w-]+)[\w.>=<]*['`] (?:is not installed|not met)", str(error))
    name = named[1] if named else error.name
    return f"{name} is not installed; `pip install {name}` adds it" if name else one_line(str(error))


def _missing_figure(message: str) -> str:
    """Name the figures that early stopping can go by."""
    wanted, *known = re.findall(r"`([\w/]+)`", message.replace("`EarlyStopping`", ""))
    known = [name for name in known if name.startswith("val")] or known
    return f"early stopping goes by {wanted}, which is not logged; choose one of {', '.join(sorted(known))}"
