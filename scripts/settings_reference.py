"""Generates the tables of settings in docs/configuration.md from the `--help all` of the commands.

`mkdocs.yml` uses this file as a hook. A line `<!-- settings of NAME -->` in a page is replaced by tables of the
settings of configs/NAME.yaml, with the defaults of the config and the descriptions of the help.
"""

import io
import os
import re
from collections.abc import Iterator
from contextlib import redirect_stdout
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

import yaml

from cyclestyle.cli import main

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
MARKER = re.compile(r"^<!-- settings of (\w+) -->$", re.MULTILINE)

LIGHTNING = ("trainer", "best")  # groups with the help of Lightning, of which only the first sentence is used
OWN_WORDS = {
    "seed_everything": "seed of all random numbers",
    "trainer.max_epochs": "epochs to train for",
    "trainer.precision": "precision of the arithmetic: `32-true`, `bf16-mixed`, …",
    "trainer.logger": "loggers of losses and figures",
    "trainer.default_root_dir": "folder of the run: checkpoints, grids, logs, config",
}


@cache
def options(*words: str) -> dict[str, str]:
    """Return the help of every option that `cyclestyle WORDS --help all` lists, by its name without dashes.

    A word that ends in `.help=CLASS` selects the options of a class, as in `cyclestyle fit --model.help=CycleGAN`.
    """
    asks = ".help=" in words[-1]
    output = io.StringIO()
    with redirect_stdout(output), patch.dict(os.environ, COLUMNS="10000"):
        try:
            status = main([*words, *(() if asks else ("--help", "all"))])
        except SystemExit as stop:
            status = int(stop.code or 0)
    if status:
        raise ValueError(f"cyclestyle {' '.join(words)} has no help")
    found: dict[str, str] = {}
    names: list[str] = []
    for line in output.getvalue().splitlines():
        if match := re.match(r"  ?(-\S.*?)(?:  +(\S.*))?$", line):
            names = re.findall(r"(?<![\w.-])--([\w.+-]+)", match[1])
            found |= dict.fromkeys(names, match[2] or "")
        elif names and line.startswith("      ") and line.strip():
            found |= {name: f"{found[name]} {line.strip()}".strip() for name in names}
        else:
            names = []
    return found


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Replace the markers of a page by tables. MkDocs calls this function."""
    return MARKER.sub(lambda match: "\n\n".join(_tables(match[1])), markdown)


def _tables(name: str) -> Iterator[str]:
    config = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())
    command = "fit" if "data" in config else "predict"
    rows: dict[str, list[str]] = {}
    for setting, default in _settings(config):
        group = setting.split(".")[0] if "." in setting else ""
        class_path = config[group].get("class_path", "") if group else ""
        title = f"`{group}`: {class_path}" if class_path else f"`{group}`" if group else "General"
        found = options(command, f"--{group}.help={class_path}") if class_path else options(command)
        rows.setdefault(title, []).append(f"| `{setting}` | {_shown(default)} | {_meaning(setting, found[setting])} |")
    for title, lines in rows.items():
        yield "\n".join([f"### {title}", "", "| setting | default | meaning |", "|---|---|---|", *lines])


def _settings(config: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the command line name and the value of every setting of a config."""
    for group, value in config.items():
        if not isinstance(value, dict):
            yield group, value
            continue
        for key, default in (value.get("init_args", value)).items():
            yield f"{group}.{key}", default


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        value = str(value["class_path"]).rpartition(".")[2]
    return f"`{yaml.safe_dump(value, default_flow_style=True, width=1000).removesuffix('...' + chr(10)).strip()}`"


def _meaning(setting: str, text: str) -> str:
    text = re.sub(r"\s*\((?:required, )?type: .*$", "", text)
    if setting.split(".")[0] in LIGHTNING:
        text = re.split(r"\.(?:\s|$)", text)[0]
    return OWN_WORDS.get(setting, text).replace("``", "`").replace("|", "\\|").removesuffix(".")
