"""`configs`: list, print or copy the configs that are installed with the package."""

from collections.abc import Sequence
from pathlib import Path

from cyclestyle.commands.line.parser import call
from cyclestyle.commands.line.shipped_configs import config_folder, config_names, resolve_config
from cyclestyle.errors import CycleStyleError
from cyclestyle.files import write_file


def configs(name: str | None = None, *, output: str | None = None, overwrite: bool = False) -> int:
    """List the configs that are installed with cyclestyle, or print or copy one of them.

    `--config NAME` of the other commands takes the same names.

    Args:
        name: a config to print: cyclegan, overlays/ema or ema.
        output: write the config to this file instead of printing it.
        overwrite: replace the file if it exists.
    """
    if name is None:
        if output is not None:
            raise CycleStyleError(f"name the config to write to {output}, as in `cyclestyle configs cyclegan`")
        print(_listing())
        return 0
    text = resolve_config(name).read_text(encoding="utf-8")
    if output is None:
        print(text, end="")
    else:
        _write(text, Path(output), overwrite=overwrite)
        print(output)
    return 0


def run(name: str, args: Sequence[str]) -> int:
    """Run `configs`."""
    return call(configs, name, args)


def _listing() -> str:
    names = config_names()
    width = max(map(len, names))
    return "\n".join(f"{name:{width}}  {_summary(config_folder() / f'{name}.yaml')}" for name in names)


def _summary(path: Path) -> str:
    """The first comment line of a config."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return next((line.removeprefix("#").strip() for line in lines if line.startswith("#")), "")


def _write(text: str, output: Path, *, overwrite: bool) -> None:
    if output.is_dir():
        raise CycleStyleError(f"{output} is a folder; name a file")
    if output.exists() and not overwrite:
        raise CycleStyleError(f"{output} exists; add --overwrite, or choose another file")
    write_file(output, text)
