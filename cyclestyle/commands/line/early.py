"""What is refused before torch is imported, which takes seconds: missing files that a command line names."""

from collections.abc import Sequence

from cyclestyle.files import checked_input
from cyclestyle.weights.resolve import check_checkpoint


def check_paths(args: Sequence[str]) -> None:
    """Check that the checkpoint and the inputs on a command line exist. Those in configs are left to the command.

    Raises:
        CheckpointError: the checkpoint does not exist.
        DataError: an input does not exist.
    """
    if any(arg in ("-h", "--help") or arg.startswith("--print_config") for arg in args):
        return  # nothing is translated
    option = ""
    for arg in args:
        word = arg
        if arg.startswith("-") and arg != "-":
            option, _, word = arg.partition("=")
        if option == "--ckpt_path" and word:
            check_checkpoint(word)
        if option == "--input" and word and word != "-" and not word.startswith("["):
            checked_input(word)
