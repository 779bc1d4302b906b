"""Sheets of the figures of Gatys, Ecker & Bethge: style weights, content reconstructions and textures.

    python scripts/gatys_sheets.py --photos photo.jpg --styles painting.jpg --output runs/gatys_sheets \\
        --network vgg16 --weights vgg16.pth

| file | columns |
|---|---|
| `weights_PHOTO_STYLE.png` | the photo, then style weights of 0.0001 to 100 times the default; rows: the two starts |
| `content_PHOTO.png` | the photo, then reconstructions from one layer each, from noise (paper, section 2.1) |
| `textures_STYLE.png` | the style, then textures from one to five layers, from noise (paper, section 2.2) |

`--features` takes the encoder of an autoencoder instead; the layers that it lacks are left out. A sheet that exists is
not made again.
"""

import argparse
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from cyclestyle.images import read_image, to_image, to_tensor, write_image
from cyclestyle.tasks import Autoencoder, Gatys, load
from cyclestyle.tasks.gatys import resized, working_size
from cyclestyle.translator import Translator

WEIGHTS = (0.0001, 0.001, 0.01, 0.1, 1.0, 10.0, 100.0)
CONTENT = ("relu1_2", "relu2_2", "relu3_2", "relu4_2", "relu5_1")
TEXTURE = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")


def main() -> None:
    """Make the sheets of all photos and styles."""
    options = _options()
    torch.manual_seed(0)
    photos = {path.stem: _read(path, options.size) for path in options.photos}
    styles = {path.stem: _read(path, options.size) for path in options.styles}
    eye = {"network": options.network, "weights": options.weights, "features": options.features}
    sheets = Sheets(eye, options.size, options.steps, options.output)
    for name in photos if "content" in options.sheets else ():
        sheets.content(name, photos[name])
    for name in styles if "textures" in options.sheets else ():
        sheets.textures(name, styles[name])
    for photo in photos if "weights" in options.sheets else ():
        for style in styles:
            sheets.weights(f"{photo}_{style}", photos[photo], styles[style])


class Sheets:
    """Makes sheets with the features `eye`, in `steps` evaluations for each image."""

    def __init__(self, eye: dict[str, Any], size: int, steps: int, output: Path) -> None:
        self.eye, self.size, self.steps, self.output = eye, size, steps, output
        self.known = _layers(eye["features"])

    def weights(self, name: str, photo: Tensor, style: Tensor) -> None:
        """Rows: started from the photo and from noise. Columns: the style weights."""
        self._write(f"weights_{name}", photo, style, [
            [{"start": start, "style_weight": weight} for weight in WEIGHTS] for start in ("content", "noise")
        ])  # fmt: skip

    def content(self, name: str, photo: Tensor) -> None:
        """One column for each of `CONTENT`, with no style loss."""
        layers = self._of(CONTENT, fallback="relu3_1")
        settings = {"start": "noise", "style_weight": 0.0}
        self._write(f"content_{name}", photo, photo, [[{**settings, "content_layers": [layer]} for layer in layers]])

    def textures(self, name: str, style: Tensor) -> None:
        """One column for each number of layers of `TEXTURE`, with no content loss."""
        layers = self._of(TEXTURE)
        settings = {"start": "noise", "content_weight": 0.0}
        counts = range(1, len(layers) + 1)
        self._write(f"textures_{name}", style, style, [
            [{**settings, "style_layers": layers[:count]} for count in counts]
        ])  # fmt: skip

    def _of(self, layers: tuple[str, ...], fallback: str | None = None) -> list[str]:
        """The layers that the network has; with `fallback` in the place of those that it lacks."""
        found = [layer for layer in layers if self.known is None or layer in self.known]
        return [*found, fallback] if fallback and len(found) < len(layers) else found

    def _paint(self, photo: Tensor, style: Tensor, **changes: Any) -> Tensor:
        layers = {"content_layers": self._of(("relu4_2",)) or ["relu3_1"], "style_layers": self._of(TEXTURE)}
        method = Gatys(**{**self.eye, **layers, "sizes": [self.size], "steps": [self.steps], **changes})
        method.use_styles([style])
        translate = Translator(method)
        translate.choose_speed()
        return translate(photo)

    def _write(self, name: str, photo: Tensor, style: Tensor, rows: list[list[dict[str, Any]]]) -> None:
        """Write a sheet of the photo and one image for each of the settings."""
        path = self.output / f"{name}.png"
        if path.exists():
            return
        images = [[photo, *(self._paint(photo, style, **settings) for settings in row)] for row in rows]
        cells = [[F.pad(image, (2, 2, 2, 2), value=1.0) for image in row] for row in images]
        path.parent.mkdir(parents=True, exist_ok=True)
        write_image(to_image(torch.cat([torch.cat(row, 2) for row in cells], 1)), path)
        print(f"{path}: {len(images)} × {len(images[0])} images", flush=True)


def _layers(features: str | None) -> tuple[str, ...] | None:
    """The layers of the encoder of an autoencoder; None for a VGG, which has all."""
    if features is None:
        return None
    task = load(features)
    assert isinstance(task, Autoencoder)
    return tuple(task.encoder.names)


def _read(path: Path, size: int) -> Tensor:
    image = to_tensor(read_image(path))
    return resized(image[None], working_size(image.shape, size, 32))[0]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, nargs="+", required=True)
    parser.add_argument("--styles", type=Path, nargs="+", required=True)
    parser.add_argument("--output", type=Path, default=Path("runs/gatys_sheets"))
    parser.add_argument("--sheets", nargs="+", default=["content", "textures", "weights"])
    parser.add_argument("--size", type=int, default=256, help="images are scaled to the area of a square of this side")
    parser.add_argument("--steps", type=int, default=200, help="evaluations for each image")
    parser.add_argument("--network", choices=["vgg16", "vgg19"], default="vgg19")
    parser.add_argument("--weights", help="a file of VGG weights, random, or torchvision's by default")
    parser.add_argument("--features", help="a checkpoint of the autoencoder instead of a VGG")
    return parser.parse_args()


if __name__ == "__main__":
    main()
