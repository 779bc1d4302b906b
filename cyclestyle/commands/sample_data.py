"""`sample-data`: draw the embedded sample domains."""

import sys
from collections.abc import Sequence
from pathlib import Path

from cyclestyle.commands.line.parser import call
from cyclestyle.commands.line.process import number_of
from cyclestyle.data.sample import write_samples


def sample_data(
    folder: str, *, train: int = 240, test: int = 24, size: int = 128, seed: int = 0, masks: bool = False
) -> int:
    """Draw photos (domain A) and paintings (domain B) of generated landscapes.

    Writes trainA, trainB, testA, testB, and in truthB the true painting of each photo in testA.

    Args:
        folder: where to write.
        train: training images of each domain.
        test: test images of each domain.
        size: width and height in pixels.
        seed: another seed draws other images.
        masks: draw the masks of trees too, into masks_trainA, masks_trainB and masks_testA.
    """

    def progress(done: int, total: int) -> None:
        print(f"\r{done} of {total} images", end="", file=sys.stderr, flush=True)

    terminal = sys.stderr.isatty()
    drawn = write_samples(
        Path(folder),
        train=train,
        test=test,
        size=size,
        seed=seed,
        masks=masks,
        progress=progress if terminal else lambda done, total: None,
    )
    if drawn and terminal:
        print(file=sys.stderr)
    print(f"{number_of(drawn, 'image')} drawn into {folder}")
    return 0


def run(name: str, args: Sequence[str]) -> int:
    """Run `sample-data`."""
    return call(sample_data, name, args)
