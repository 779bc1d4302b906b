"""`export`: write a trained CycleGAN in another program's format."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from cyclestyle.errors import CheckpointError
from cyclestyle.weights.checkpoints import read_checkpoint
from cyclestyle.weights.official import write_official


def run(name: str, args: Sequence[str]) -> int:
    """Run `export`."""
    parser = argparse.ArgumentParser(
        prog="cyclestyle export",
        description="Write a trained CycleGAN in another program's format. `official` is the original "
        "implementation's: latest_net_G_A.pth, latest_net_G_B.pth, latest_net_D_A.pth and latest_net_D_B.pth.",
    )
    parser.add_argument("--ckpt_path", type=Path, required=True, help="checkpoint of a training run")
    parser.add_argument("--output", type=Path, required=True, help="folder to write into")
    parser.add_argument("--format", choices=["official"], default="official", help="(default %(default)s)")
    parser.add_argument("--epoch", default="latest", help="what the names begin with (default %(default)s)")
    parser.add_argument("--overwrite", action="store_true", help="replace files that are there already")
    options = parser.parse_args(args)
    checkpoint = read_checkpoint(options.ckpt_path)
    if checkpoint.get("cyclestyle_task") != "CycleGAN":
        raise CheckpointError(f"{options.ckpt_path} is no checkpoint of a CycleGAN run; there is nothing to export")
    present = [path for path in options.output.glob(f"{options.epoch}_net_*.pth") if not options.overwrite]
    if present:
        raise CheckpointError(f"{present[0]} is there already; add --overwrite, or choose another --output or --epoch")
    for path in write_official(checkpoint["state_dict"], options.output, options.epoch):
        print(path)
    return 0
