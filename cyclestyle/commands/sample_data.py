"""`sample-data`: draw the embedded sample domains."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from cyclestyle.data.sample import write_samples


def run(name: str, args: Sequence[str]) -> int:
    """Run `sample-data`."""
    parser = argparse.ArgumentParser(
        prog="cyclestyle sample-data",
        description="Draw photos (domain A) and paintings (domain B) of made-up landscapes, from a seed alone: "
        "trainA, trainB, testA, testB, and in truthB the true painting of each photo of testA.",
    )
    parser.add_argument("folder", type=Path, help="where to write")
    parser.add_argument("--train", type=int, default=240, help="training images of each domain (default %(default)s)")
    parser.add_argument("--test", type=int, default=24, help="test images of each domain (default %(default)s)")
    parser.add_argument("--size", type=int, default=128, help="width and height in pixels (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="another seed draws other images (default %(default)s)")
    options = parser.parse_args(args)

    def progress(done: int, total: int) -> None:
        print(f"\r{done} of {total} images", end="", file=sys.stderr, flush=True)

    drawn = write_samples(
        options.folder,
        train=options.train,
        test=options.test,
        size=options.size,
        seed=options.seed,
        progress=progress if sys.stderr.isatty() else lambda done, total: None,
    )
    if drawn and sys.stderr.isatty():
        print(file=sys.stderr)
    print(f"{drawn} images drawn into {options.folder}")
    return 0
