"""Features of images, on which distances rest; each figure names the extractor that it comes from.

| name | what | needs | size |
|---|---|---|---|
| `statistics` | colours and local texture, computed | nothing | 33 |
| `squeezenet` | SqueezeNet 1.1, ImageNet (Iandola et al. 2016) | torchvision's weights, or a file | 512 |
| `vgg` | VGG-19, normalised activations, up to relu3_1 (Gatys et al. 2015) | a file | 256 |
| `inception` | Inception v3, as FID and KID use it (Heusel et al. 2017) | torch-fidelity and its weights | 2048 |
"""

from pathlib import Path
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cyclestyle.errors import CheckpointError
from cyclestyle.metrics.texture import texture_statistics
from cyclestyle.networks.vgg import build_vgg
from cyclestyle.weights.checkpoints import read_checkpoint

ExtractorName = Literal["statistics", "squeezenet", "vgg", "inception"]


class Extractor(nn.Module):
    """Turns images `(N, 3, H, W)` in [-1, 1] into feature maps and embeddings.

    Images are first resized to `size` × `size`, antialiased and bicubic, as from 8-bit files (Parmar et al.
    2022, clean-fid); `None` leaves them as they are.

    Attributes:
        name: what to write beside every figure.
        scaled: embeddings are scaled to the length √C, on which KID's kernel is a function of their angle.
    """

    name: str = ""
    size: int | None = None
    scaled = False

    def maps(self, images: Tensor) -> Tensor:
        """Return feature maps `(N, C, h, w)`."""
        if self.size is not None:
            images = resized(images, self.size)
        return self._maps(images)

    def forward(self, images: Tensor) -> Tensor:
        """Return embeddings `(N, C)`: the mean of each map."""
        means = self.maps(images).mean(dim=(2, 3))
        return F.normalize(means, dim=1) * means.shape[1] ** 0.5 if self.scaled else means

    def _maps(self, images: Tensor) -> Tensor:
        raise NotImplementedError


class Statistics(Extractor):
    """Colours and local texture: mean, deviation and covariance of RGB, mean and spread of oriented contrast."""

    name = "statistics"

    def forward(self, images: Tensor) -> Tensor:
        """Return embeddings `(N, 33)`."""
        pixels = images.flatten(2)  # (N, 3, H·W)
        centred = pixels - pixels.mean(dim=2, keepdim=True)
        covariance = centred @ centred.mT / pixels.shape[2]
        rows, columns = torch.triu_indices(3, 3, offset=1)
        texture = texture_statistics(images)
        return torch.cat(
            [
                pixels.mean(dim=2),
                centred.square().mean(dim=2).sqrt(),
                covariance[:, rows, columns],
                texture.mean(dim=(2, 3)),
                texture.std(dim=(2, 3), unbiased=False),
            ],
            dim=1,
        )

    def _maps(self, images: Tensor) -> Tensor:
        texture = texture_statistics(images)
        colour = F.adaptive_avg_pool2d(images, (texture.shape[2], texture.shape[3]))
        return torch.cat([colour, texture / 4], dim=1)  # log contrast spans about 4, colours 2


class SqueezeNet(Extractor):
    """SqueezeNet 1.1 up to its last fire module."""

    name = "squeezenet"
    size = 224
    scaled = True

    def __init__(self, weights: Path | None) -> None:
        super().__init__()
        from torchvision.models import SqueezeNet1_1_Weights, squeezenet1_1

        if weights is None:
            network = squeezenet1_1(weights=SqueezeNet1_1_Weights.IMAGENET1K_V1)
        else:
            network = squeezenet1_1()
            network.load_state_dict(read_onnx(weights) if weights.suffix == ".onnx" else read_checkpoint(weights))
        self.features = network.features
        caffe = weights is not None and weights.suffix == ".onnx"  # BGR, 0 to 255, less a mean
        self.order = [2, 1, 0] if caffe else [0, 1, 2]
        mean, deviation = (
            ((104.0, 117.0, 123.0), 1.0) if caffe else ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
        )
        self.register_buffer("mean", torch.tensor(mean)[:, None, None])
        self.register_buffer("deviation", torch.tensor(deviation).expand(3)[:, None, None])

    def _maps(self, images: Tensor) -> Tensor:
        levels = (images + 1) * 127.5
        mean, deviation = self.get_buffer("mean"), self.get_buffer("deviation")
        result: Tensor = self.features((levels[:, self.order] - mean) / deviation)
        return result


class NormalisedVGG(Extractor):
    """VGG-19 with normalised activations up to relu3_1; its first layer takes RGB in [0, 1]."""

    name = "vgg"
    size = 256
    scaled = True

    def __init__(self, weights: Path | None) -> None:
        super().__init__()
        if weights is None:
            raise CheckpointError("the extractor vgg needs a file: set its weights to vgg_normalised_conv3_1.pth")
        try:
            self.network = build_vgg(["relu3_1"], read_checkpoint(weights))
        except CheckpointError as error:
            raise CheckpointError(f"{weights} is not a normalised VGG up to relu3_1") from error
        if not self.network.normalised:
            raise CheckpointError(f"{weights} is not a normalised VGG up to relu3_1")

    def _maps(self, images: Tensor) -> Tensor:
        result: Tensor = self.network(images)["relu3_1"]
        return result


class Inception(Extractor):
    """Inception v3 by torch-fidelity; `forward` is what FID and KID of the literature rest on."""

    name = "inception"
    size = 299

    def __init__(self, weights: Path | None) -> None:
        super().__init__()
        try:
            from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
        except ImportError as error:
            raise CheckpointError("the extractor inception needs the package torch-fidelity: pip install it") from error
        try:
            path = None if weights is None else str(weights)
            self.network = FeatureExtractorInceptionV3(
                "inception-v3-compat", ["2048"], feature_extractor_weights_path=path
            )
        except (OSError, RuntimeError) as error:
            raise CheckpointError(
                f"cannot load Inception ({error}); "
                "set the extractor's weights to weights-inception-2015-12-05-6726825d.pth"
            ) from error

    def _maps(self, images: Tensor) -> Tensor:
        features: Tensor = self.network(((images + 1) * 127.5).round().clamp(0, 255).to(torch.uint8))[0]
        return features[:, :, None, None]


def build_extractor(name: ExtractorName = "statistics", weights: str | Path | None = None) -> Extractor:
    """Build an extractor, frozen and in evaluation mode.

    Raises:
        ValueError: the name is unknown.
        CheckpointError: its weights are missing, of another network, or cannot be fetched.
    """
    if name not in get_args(ExtractorName):
        raise ValueError(f"extractor must be one of {', '.join(get_args(ExtractorName))}, got {name!r}")
    path = None if weights is None else Path(weights)
    if path is not None and not path.is_file():
        raise CheckpointError(f"the extractor's weights {path} do not exist")
    kinds = {"squeezenet": SqueezeNet, "vgg": NormalisedVGG, "inception": Inception}
    try:
        extractor = kinds[name](path) if name in kinds else Statistics()
    except OSError as error:  # no network to fetch weights from
        raise CheckpointError(
            f"cannot fetch the weights of the extractor {name} ({error}); set its weights to a file, "
            "or choose the extractor statistics, which needs none"
        ) from error
    return extractor.eval().requires_grad_(False)


def resized(images: Tensor, size: int) -> Tensor:
    """Resize `(N, 3, H, W)` in [-1, 1] to squares as an image library resizes 8-bit files."""
    levels = ((images + 1) * 127.5).round().clamp(0, 255)
    if levels.shape[2:] != (size, size):
        levels = F.interpolate(levels, size=(size, size), mode="bicubic", antialias=True).clamp(0, 255)
    return levels / 127.5 - 1


def read_onnx(path: Path) -> dict[str, Tensor]:
    """Read SqueezeNet 1.1's weights out of an ONNX file, under torchvision's names.

    Raises:
        CheckpointError: the package onnx is missing, or the file is another network's.
    """
    try:
        import onnx
    except ImportError as error:
        raise CheckpointError(f"reading {path} needs the package onnx: pip install it") from error
    try:
        stored = {item.name: onnx.numpy_helper.to_array(item) for item in onnx.load(path).graph.initializer}
        weights = {}
        for name, values in stored.items():
            layer, _, kind = name.removesuffix("_0").rpartition("_")
            weights[f"{_TORCHVISION[layer]}.{'weight' if kind == 'w' else 'bias'}"] = torch.tensor(values).float()
    except Exception as error:  # onnx raises what protobuf raises
        raise CheckpointError(f"{path} is not a SqueezeNet 1.1") from error
    return weights


_FIRE = {2: 3, 3: 4, 4: 6, 5: 7, 6: 9, 7: 10, 8: 11, 9: 12}  # the paper's fire modules in torchvision's features
_TORCHVISION = {"conv1": "features.0", "conv10": "classifier.1"} | {
    f"fire{fire}/{part}": f"features.{index}.{part.replace('squeeze1x1', 'squeeze')}"
    for fire, index in _FIRE.items()
    for part in ("squeeze1x1", "expand1x1", "expand3x3")
}
