"""From the name of a checkpoint to its file: paths, models of the package and the original release, W&B artifacts."""

import json
import os
import re
import sys
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

from cyclestyle.errors import CheckpointError, optional
from cyclestyle.weights import known
from cyclestyle.weights.shipped import SHIPPED, shipped_path

WANDB = "wandb:"
ENDINGS = (".ckpt", ".safetensors", ".pth", ".onnx", ".xml", ".pt2")
"""Endings of checkpoints."""
WEIGHTS, CONFIG = "model.safetensors", "config.json"
"""The files in the folder of a translator."""


def resolve_checkpoint(name: str | Path) -> Path:
    """Return the file or folder of a checkpoint, which is downloaded if its name says so.

    | name | what it is |
    |---|---|
    | `styles` | a model of the package (`cyclestyle.weights.shipped`), unless a file or folder has this name |
    | `official:style_monet` | a generator of the original release; see `cyclestyle.weights.known` |
    | `wandb:entity/project/name:alias` | an artifact of Weights & Biases with a checkpoint in it |
    | `user/name` | a repository of the Hugging Face Hub, unless there is a folder `user` |
    | anything else | a path |

    Raises:
        CheckpointError: the name is unknown, it cannot be downloaded, or the artifact has no checkpoint.
    """
    word = str(name)
    if known.is_known(word):
        return known.fetch(word.removeprefix(known.PREFIX), _show)
    if word.startswith(WANDB):
        return _artifact(word.removeprefix(WANDB))
    if word in SHIPPED and not Path(word).exists():
        return shipped_path(word)
    if _may_be_on_hub(word):
        return hub_folder(word)
    check_checkpoint(word)
    return Path(name)


def check_checkpoint(name: str) -> None:
    """Check that a name is that of a model, or a path that exists; nothing is downloaded.

    Raises:
        CheckpointError: it is a path that does not exist, or a word that is no model.
    """
    path = Path(name)
    if path.exists() or known.is_known(name) or name.startswith(WANDB) or name in SHIPPED or _may_be_on_hub(name):
        return
    hint = "" if len(path.parts) > 1 or path.suffix else _did_you_mean(name)
    raise CheckpointError(f"checkpoint {name} does not exist{hint}")


def _may_be_on_hub(name: str) -> bool:
    path = Path(name)
    return bool(re.fullmatch(r"[\w.-]+/[\w.-]+", name)) and not path.parent.is_dir() and path.suffix not in ENDINGS


def saved_direction(folder: Path) -> Literal["AtoB", "BtoA"]:
    """Return the direction that was saved; `AtoB` if the config says nothing."""
    try:
        direction = json.loads((folder / CONFIG).read_text()).get("direction")
    except (OSError, ValueError, AttributeError):
        return "AtoB"
    return "BtoA" if direction == "BtoA" else "AtoB"


def hub_folder(name: str, **options: Any) -> Path:
    """Return the folder of a repository of the Hugging Face Hub, which is downloaded once.

    Args:
        name: such as `user/name`.
        options: those of `huggingface_hub.snapshot_download`, such as `revision` and `token`.

    Raises:
        CheckpointError: the repository cannot be reached and has not been downloaded before.
        CycleStyleError: huggingface_hub is not installed.
    """
    hub = optional("huggingface_hub", f"{name}, which does not exist here, but may be a model of the Hub,", "hub")
    try:
        return Path(hub.snapshot_download(name, allow_patterns=[WEIGHTS, CONFIG], **options))
    except Exception as error:  # of many kinds
        reason = " ".join(str(error).split())[:160]
        raise CheckpointError(
            f"{name} does not exist, and cannot be downloaded from the Hugging Face Hub ({reason})"
        ) from error


def _did_you_mean(word: str) -> str:
    """The name that a misspelt one may stand for."""
    names = [*SHIPPED, *(f"{known.PREFIX}{name}" for name in known.NAMES)]
    close = [known.PREFIX + word] if word in known.NAMES else get_close_matches(word, names, n=1)
    meant = f"; did you mean {close[0]}?" if close else "; name a file or the folder of a run, or a model:"
    return f"{meant} `cyclestyle models` lists {', '.join(SHIPPED)} and those of the original release"


def _artifact(name: str) -> Path:
    if not re.fullmatch(r"[^/:]+/[^/:]+/[^/:]+(:[^/:]+)?", name):
        raise CheckpointError(f"wandb:{name} must be wandb:entity/project/name:alias")
    wandb = optional("wandb", "an artifact of Weights & Biases", "export")
    full = name if ":" in name else f"{name}:latest"
    target = known.models_folder().parent / "artifacts" / re.sub(r"[^\w.-]", "_", full)
    try:
        folder = Path(wandb.Api().artifact(full).download(root=str(target)))
    except Exception as error:  # of many kinds
        reason = " ".join(str(error).split())[:160]
        raise CheckpointError(f"cannot download wandb:{name}: {reason}; `wandb login` signs you in") from error
    return _checkpoint_in(folder, name)


def _checkpoint_in(folder: Path, name: str) -> Path:
    """The checkpoint in the folder of an artifact: the folder itself, its best one, or the only one."""
    if (folder / WEIGHTS).is_file() or (folder / "checkpoints").is_dir():
        return folder
    found = [path for path in sorted(folder.rglob("*")) if path.suffix in ENDINGS]
    for wanted in ("best.ckpt", "last.ckpt"):
        if chosen := [path for path in found if path.name == wanted]:
            return chosen[0]
    if len(found) != 1:
        raise CheckpointError(f"wandb:{name} has {len(found)} checkpoints in it; expected one, best.ckpt or last.ckpt")
    return found[0]


def _show(received: int, total: int) -> None:
    """Write a line of progress, where there is a terminal."""
    if sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
        whole = f" of {total / 1e6:.0f}" if total else ""
        end = "\n" if received == total else ""
        print(f"\rdownloading {received / 1e6:.0f}{whole} MB", end=end, file=sys.stderr, flush=True)
