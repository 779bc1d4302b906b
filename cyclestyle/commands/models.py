"""`models`: list the models that are known by name."""

from collections.abc import Sequence

from cyclestyle.commands.line.parser import call
from cyclestyle.weights.known import NAMES, PREFIX, known_path, models_folder
from cyclestyle.weights.shipped import SHIPPED, shipped_path, shipped_styles


def models() -> int:
    """List the models that --ckpt_path takes by name: those of the package, and those of the original CycleGAN release.

    The latter are downloaded at first use, into the folder that CYCLESTYLE_CACHE names. CYCLESTYLE_MODELS_URL is the
    address that they come from.
    """
    print("in the package:")
    for name, model in SHIPPED.items():
        path = shipped_path(name)
        print(f"  {name:32} {path.stat().st_size / 1e6:.1f} MB, {model.purpose}")
        if styles := shipped_styles(name):
            print(f"  {'':32} --style {', '.join(styles)}")
    print("to download, of the original CycleGAN release, one direction each:")
    for name in NAMES:
        path = known_path(name)
        size = f"{path.stat().st_size / 1e6:.0f} MB, downloaded" if path.is_file() else "not downloaded"
        print(f"  {PREFIX + name:32} {size}")
    print(f"folder of downloads: {models_folder()}")
    return 0


def run(name: str, args: Sequence[str]) -> int:
    """Run `models`."""
    return call(models, name, args)
