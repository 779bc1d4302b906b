"""How well a network of many styles does what Gatys minimises: a table of every style.

    python scripts/style_scores.py --ckpt_path styles --vgg vgg16.pth --styles paintings/ --photos photos/ --count 20

For each style: the style loss that is left, in percent of that of the untouched photo, and the content loss of the
result, both the mean over the photos. The losses are those of the authors' code of Gatys et al. 2016 with VGG-16: style
relu1_1 to relu5_1, Gram matrices divided by H·W, mean squared differences, weight 1000 / C²; content relu4_2. With
`--evaluations 200`, Gatys itself is run on the same photos for as many evaluations, from the photo.
"""

import argparse
from pathlib import Path

import torch
from torch import Tensor

from cyclestyle import Translator
from cyclestyle.files import write_json
from cyclestyle.functional.style import content_loss, gram_matrix, style_loss
from cyclestyle.images import read_image, to_tensor
from cyclestyle.images.folders import find_images
from cyclestyle.networks.vgg import VGG
from cyclestyle.tasks import Gatys
from cyclestyle.tasks.gatys import STYLE_LAYERS, resized, working_size
from cyclestyle.weights.vgg import load_vgg

CONTENT_LAYER = "relu4_2"


def main() -> None:
    """Paint, measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ckpt_path", default="styles")
    parser.add_argument("--vgg", required=True, help="a file of VGG-16 weights in torchvision's layout")
    parser.add_argument("--styles", type=Path, required=True, help="folder of the paintings, named as the styles")
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--count", type=int, default=20, help="photos")
    parser.add_argument("--size", type=int, default=256, help="square root of the pixels of photos")
    parser.add_argument("--style_size", type=int, default=512, help="square root of the pixels of paintings")
    parser.add_argument("--evaluations", type=int, default=0, help="of Gatys, beside the network; 0: none")
    parser.add_argument("--only", nargs="+", help="names of styles; default all")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    translate = Translator.load(options.ckpt_path, work_size=0)
    paintings = {path.stem: path for path in find_images(options.styles)}
    vgg = load_vgg([*STYLE_LAYERS, CONTENT_LAYER], weights=options.vgg, name="vgg16")
    vgg.scale_as_original([_read(path, options.style_size) for path in paintings.values()])
    photos = [_read(path, options.size) for path in find_images(options.photos)[: options.count]]
    seen = [_features(vgg, photo) for photo in photos]
    rows = {}
    for name in options.only or translate.method.style_names:
        painting = _read(paintings[name], options.style_size)
        target = _features(vgg, painting)[0]
        translate.method.use_styles([name])
        results = {"network": [translate.translate(photo) for photo in photos]}
        if options.evaluations:
            results["Gatys"] = _gatys(options, painting, photos)
        own = torch.stack([_style(grams, target) for grams, _ in seen])
        rows[name] = {"style loss of the photo": own.mean().item()}
        for method, painted in results.items():
            found = [_features(vgg, image) for image in painted]
            left = torch.stack([_style(grams, target) for grams, _ in found]) / own
            content = [content_loss(one, photo) for (_, one), (_, photo) in zip(found, seen, strict=True)]
            rows[name][method] = {"style left": left.mean().item(), "content": torch.stack(content).mean().item()}
        cells = "  ".join(
            f"{method}: style left {100 * one['style left']:5.1f} %, content {one['content']:8.1f}"
            for method, one in rows[name].items()
            if isinstance(one, dict)
        )
        print(f"{name:32} {cells}", flush=True)
    if options.json:
        write_json(options.json, rows)


def _read(path: Path, size: int) -> Tensor:
    image = to_tensor(read_image(path))[None]
    return resized(image, working_size(image.shape, size, 32))


@torch.inference_mode()
def _features(vgg: VGG, image: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    """The Gram matrices of an image, and its content features."""
    features = vgg(image.float())
    return {layer: gram_matrix(features[layer]) for layer in STYLE_LAYERS}, features[CONTENT_LAYER]


def _style(grams: dict[str, Tensor], target: dict[str, Tensor]) -> Tensor:
    terms = [1e3 / grams[layer].shape[-1] ** 2 * style_loss(grams[layer], target[layer]) for layer in STYLE_LAYERS]
    return torch.stack(terms).sum()


def _gatys(options: argparse.Namespace, painting: Tensor, photos: list[Tensor]) -> list[Tensor]:
    task = Gatys(
        network="vgg16",
        weights=options.vgg,
        sizes=[options.size],
        steps=[options.evaluations],
        style_scale=options.style_size / options.size,
    )
    task.use_styles([painting[0]])
    return [task.translate(photo, "AtoB") for photo in photos]


if __name__ == "__main__":
    main()
