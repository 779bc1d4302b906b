"""What a user may have meant by a misspelt option."""

import re
from collections.abc import Iterable
from difflib import get_close_matches

SYNONYMS = {
    "epochs": ("trainer.max_epochs", "model.constant_epochs", "model.decay_epochs"),
    "steps": ("trainer.max_steps",),
    "gpus": ("trainer.devices",),
    "gpu_ids": ("trainer.devices",),
    "name": ("trainer.default_root_dir",),
    "checkpoints_dir": ("trainer.default_root_dir",),
    "dataroot": ("data.root",),
    "dataset": ("data.root",),
    "continue_train": ("ckpt_path last",),
    "resume": ("ckpt_path last",),
    "learning_rate": ("model.lr",),
    "n_epochs": ("model.constant_epochs",),
    "n_epochs_decay": ("model.decay_epochs",),
    "num_threads": ("data.workers",),
    "max_dataset_size": ("data.max_images",),
    "preprocess": ("data.resize",),
    "netG": ("model.generator",),
    "netD": ("model.discriminator",),
    "beta1": ("model.betas",),
    "display_freq": ("grid.every_n_steps",),
    "save_epoch_freq": ("checkpoint.every_n_epochs",),
    "dataset_mode": ("data",),
    "results_dir": ("output",),
}
"""Names that other programs, the original implementation among them, give to options of ours."""


def suggestion(message: str, known: Iterable[str]) -> str:
    """Return what a user may have meant by the option that an error message names; empty if nothing is near.

    Args:
        message: the error message.
        known: all options of the command, such as `trainer.max_epochs`.
    """
    found = re.search(r"unrecognized arguments: --([\w.]+)|(?:([\w.]+): )?there is no option ([\w.]+)", message)
    if found is None or (found[1] is None and found[2] is None):  # the parser of the group will name it again
        return ""
    wrong = found[1] or ".".join(filter(None, (found[2], found[3])))
    if "model" in (known := list(known)):
        from cyclestyle.commands.fit.short_help import (
            subclass_options,  # the classes of all methods, which import torch
        )

        known += subclass_options()
    options = [option for option in known if option != wrong]  # another method may have it
    name = wrong.rpartition(".")[2]
    same = [option for option in options if option.rpartition(".")[2] == name]
    near = SYNONYMS.get(name) or same or _near(wrong, options)
    return f"; did you mean {' or '.join(f'--{one}' for one in dict.fromkeys(near))}?" if near else ""


def _near(wrong: str, options: list[str]) -> list[str]:
    """Options whose last word is spelt like that of a wrong one, in the same group if there are any."""
    group, _, name = wrong.rpartition(".")
    names = {option.rpartition(".")[2] for option in options if not group or option.startswith(f"{group}.")}
    close = get_close_matches(name, sorted(names), n=1, cutoff=0.7) or [one for one in names if one.startswith(name)]
    return [one for one in options if close and one.rpartition(".")[2] == close[0] and one.startswith(group)][:3]
