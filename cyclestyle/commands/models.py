"""`models`: list the models that are known by name."""

from collections.abc import Sequence

from cyclestyle.commands.parser import call
from cyclestyle.weights.known import NAMES, PREFIX, known_path, models_folder


def models() -> int:
    """List the generators of the original CycleGAN release, which --ckpt_path takes as official:NAME.

    Each is downloaded at first use, into the folder that CYCLESTYLE_CACHE names. CYCLESTYLE_MODELS_URL is the address
    that they come from.
    """
    for name in NAMES:
        path = known_path(name)
        size = f"{path.stat().st_size / 1e6:.0f} MB, downloaded" if path.is_file() else "not downloaded"
        print(f"{PREFIX}{name:24} {size}")
    print(f"folder: {models_folder()}")
    return 0


def run(name: str, args: Sequence[str]) -> int:
    """Run `models`."""
    return call(models, name, args)
