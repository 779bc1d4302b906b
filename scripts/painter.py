"""Turn a style of a many-styles network into a generator without norms, from which a ContentGAN begins.

    python scripts/painter.py --style monet_etretat --photos datasets/monet2photo/trainB --output painter.safetensors

The norms become constants, which are measured on photos; see `cyclestyle.networks.painter`.
"""

import argparse
from pathlib import Path

import torch

from cyclestyle.images import read_image, to_tensor
from cyclestyle.images.folders import find_images
from cyclestyle.networks.method import Direction
from cyclestyle.networks.painter import as_generator
from cyclestyle.networks.styles import shares_of
from cyclestyle.sharing.exporting import Exporting, export_method
from cyclestyle.translation.opening import open_method
from cyclestyle.translation.plain import GeneratorOnly, ManyStyles

DIRECTION: Direction = "AtoB"


def main() -> None:
    """Write the generator."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ckpt_path", default="styles", help="a network of many styles")
    parser.add_argument("--style", nargs="+", required=True, help="one of its styles, or several, which are mixed")
    parser.add_argument("--photos", type=Path, required=True, help="photos of the same size")
    parser.add_argument("--count", type=int, default=48, help="photos that are measured")
    parser.add_argument("--output", type=Path, required=True, help="a file .safetensors")
    arguments = parser.parse_args()
    painter = open_method(arguments.ckpt_path)
    assert isinstance(painter, ManyStyles), f"{arguments.ckpt_path} is no network of many styles"
    paths = find_images(arguments.photos)
    chosen = paths[:: max(1, len(paths) // arguments.count)][: arguments.count]
    photos = torch.stack([to_tensor(read_image(path)) for path in chosen])
    network = as_generator(painter.transform, shares_of(arguments.style, painter.style_names), photos)
    width = painter.transform.first.conv.out_channels
    method = GeneratorOnly(generator="resnet6", depth=5, ngf=width, resample="resize", norm="none")
    method.network(DIRECTION).load_state_dict(network.state_dict())
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    export_method(method, arguments.output, Exporting(format="safetensors", training={}, checks=photos[:1, None]))


if __name__ == "__main__":
    main()
