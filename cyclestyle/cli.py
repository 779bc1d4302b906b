"""The command line: finds the command, runs it, and reports a user's mistake in one line."""

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import NoReturn

from cyclestyle import __version__
from cyclestyle.commands.line.output import keep_output_going, lost_output
from cyclestyle.errors import CycleStyleError, StoppedError

# Command: its module below cyclestyle.commands, and what it is for. Imported when called, because torch takes seconds.
COMMANDS = {
    "fit": ("fit.command", "train from a config"),
    "validate": ("fit.command", "measure a checkpoint on the test split, as during training"),
    "test": ("fit.command", "measure a checkpoint on the test split"),
    "predict": ("predict", "translate images and folders of images"),
    "export": ("export", "write a checkpoint for other programs"),
    "demo": ("demo", "translate images on a page in the browser"),
    "sample-data": ("sample_data", "draw the embedded sample domains"),
    "score": ("score", "measure translations"),
    "compare": ("compare", "run methods on the same photos, and show them on one page"),
    "models": ("models", "list the models that are known by name"),
    "configs": ("configs", "list, print or copy the configs that are installed with cyclestyle"),
}

USAGE = "usage: cyclestyle [-h] [--version] COMMAND ..."


def main(args: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit status: 0 for success, 1 for a failure, 2 for a wrong call."""
    words = list(sys.argv[1:] if args is None else args)
    if not words or words[0] in ("-h", "--help"):
        print(_help(), file=sys.stdout if words else sys.stderr)
        return 0 if words else 2
    if words[0] == "--version":
        print(f"cyclestyle {__version__}")
        return 0
    name, *rest = words
    if name not in COMMANDS:
        return _fail(f"unknown command {name}; choose from {', '.join(COMMANDS)}", status=2)
    try:
        return _run(name, rest)
    except StoppedError as stop:
        if str(stop):
            print(f"cyclestyle: {stop}", file=sys.stderr)
        return stop.status
    except CycleStyleError as error:
        return _fail(str(error), status=error.status)
    except KeyboardInterrupt:
        return _fail("interrupted", status=130)


def _run(name: str, args: Sequence[str]) -> int:
    from cyclestyle.commands.line.process import keep_compiled_code, quiet

    keep_compiled_code()  # before torch is imported
    if (folder := os.getcwd()) not in sys.path:
        sys.path.append(folder)  # for methods of the user, as `--model colourise.Colourise`; last, to shadow nothing
    from cyclestyle.commands.line.early import check_paths
    from cyclestyle.commands.line.errors import one_line_errors
    from cyclestyle.commands.line.shipped_configs import resolve_config_arguments

    with one_line_errors():
        words = resolve_config_arguments([_expand_home(word) for word in args])
        if name in ("predict", "export"):
            check_paths(words)
        command = import_module(f"cyclestyle.commands.{COMMANDS[name][0]}")
        quiet()  # after the import, which installs the log handlers of Lightning
        return int(command.run(name, words))


def _expand_home(word: str) -> str:
    """Expand `~` also in `--option=~/folder`, where a shell leaves it."""
    option, equals, value = word.partition("=") if word.startswith("--") else ("", "", word)
    return f"{option}{equals}{os.path.expanduser(value)}"


def console() -> NoReturn:
    """Entry point of the `cyclestyle` program."""
    keep_output_going()
    status = main()
    if (reason := lost_output()) and status == 0:
        status = _fail(f"the output could not be written: {reason}", status=1)
    sys.exit(status)


def _help() -> str:
    lines = [f"  {name:12} {purpose}" for name, (_, purpose) in COMMANDS.items()]
    return "\n".join(
        [
            USAGE,
            "",
            "Turn photos into paintings, and back, from two folders of unrelated images.",
            "",
            *lines,
            "",
            "`cyclestyle COMMAND --help` lists the options of a command.",
        ]
    )


def _fail(message: str, *, status: int) -> int:
    print(f"cyclestyle: error: {message}", file=sys.stderr)
    return status
