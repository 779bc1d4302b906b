"""From the name of a checkpoint to its file: paths, models of the package and the original release, W&B artifacts."""

import os
import re
import sys
from pathlib import Path

from cyclestyle.errors import CheckpointError, optional
from cyclestyle.weights import known
from cyclestyle.weights.shipped import SHIPPED, shipped_path

WANDB = "wandb:"


def located(name: str | Path) -> Path:
    """Return the file or folder of a checkpoint, which is downloaded if its name says so.

    | name | what it is |
    |---|---|
    | `styles` | a model of the package (`cyclestyle.weights.shipped`), unless a file or folder has this name |
    | `official:style_monet` | a generator of the original release; see `cyclestyle.weights.known` |
    | `wandb:entity/project/name:alias` | an artifact of Weights & Biases with a checkpoint in it |
    | anything else | a path |

    Raises:
        CheckpointError: it cannot be downloaded, or the artifact has no checkpoint.
    """
    word = str(name)
    if known.is_known(word):
        return known.fetch(word.removeprefix(known.PREFIX), _show)
    if word.startswith(WANDB):
        return _artifact(word.removeprefix(WANDB))
    if word in SHIPPED and not Path(word).exists():
        return shipped_path(word)
    return Path(name)


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
    if (folder / "model.safetensors").is_file() or (folder / "checkpoints").is_dir():
        return folder
    endings = (".ckpt", ".safetensors", ".pth", ".onnx", ".xml", ".pt2")
    found = [path for path in sorted(folder.rglob("*")) if path.suffix in endings]
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
