"""Finds the configs that are installed with the package, by name and from any folder."""

from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

from cyclestyle.errors import CycleStyleError

OPTIONS = ("--config", "-c")


def config_folder() -> Path:
    """Return the folder of the shipped configs.

    An installed package has them inside; in a clone, and in an editable install of it, they lie beside the package.

    Raises:
        CycleStyleError: the folder is missing.
    """
    package = Path(__file__).resolve().parents[2]
    for folder in (package / "configs", package.parent / "configs"):
        if folder.is_dir():
            return folder
    raise CycleStyleError(f"the configs of cyclestyle are missing beside {package}; install the package again")


def config_names() -> list[str]:
    """Return the names of the shipped configs: `cyclegan`, `overlays/ema`, …; overlays come last."""
    folder = config_folder()
    names = [path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.yaml")]
    return sorted(names, key=lambda name: ("/" in name, name))


def resolve_config(word: str) -> Path:
    """Return the file that a user means by `word`.

    A file that exists wins. Otherwise `word` is the name of a shipped config: `cyclegan`, `cyclegan.yaml`,
    `configs/cyclegan.yaml`, `overlays/bf16` or `bf16`.

    Raises:
        CycleStyleError: there is neither such a file nor such a config.
    """
    if Path(word).is_file():
        return Path(word)
    names = config_names()
    name = word.removeprefix("./").removeprefix("configs/").removesuffix(".yaml")
    for candidate in (name, f"overlays/{name}"):
        if candidate in names:
            return config_folder() / f"{candidate}.yaml"
    short = [one.removeprefix("overlays/") for one in names]
    wrong = Path(name).name
    close = get_close_matches(wrong, short, n=3, cutoff=0.75) or get_close_matches(wrong, short, n=3)
    hint = f"did you mean {' or '.join(close)}? " if close else ""
    raise CycleStyleError(f"config {word} does not exist; {hint}`cyclestyle configs` lists the shipped ones")


def resolve_config_arguments(args: Sequence[str]) -> list[str]:
    """Replace the value of every `--config` and `-c` by the path of the file that it means.

    Raises:
        CycleStyleError: one of them is neither a file nor a shipped config.
    """
    resolved: list[str] = []
    for arg in args:
        option, equals, value = arg.partition("=")
        if resolved and resolved[-1] in OPTIONS:
            resolved.append(str(resolve_config(arg)))
        elif option in OPTIONS and equals:
            resolved.append(f"{option}={resolve_config(value)}")
        else:
            resolved.append(arg)
    return resolved
