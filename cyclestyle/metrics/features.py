"""Feature extractors for the distances between images. Every result is reported with the name of its extractor.

| name | features | requires | channels |
|---|---|---|---|
| `statistics` | statistics of colours and local texture | no file | 33 |
| `squeezenet` | SqueezeNet 1.1, ImageNet (Iandola et al. 2016) | the weights of torchvision, or a file | 512 |
| `vgg` | VGG-19, normalised activations, up to relu3_1 (Gatys et al. 2015) | a file | 256 |
| `vgg16` | VGG-16, ImageNet, relu5_3 (Simonyan & Zisserman 2015) | the weights of torchvision, or a file | 512 |
| `inception` | Inception v3, as in FID and KID (Heusel et al. 2017) | torch-fidelity and its weights | 2048 |
"""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Literal, get_args
from weakref import ReferenceType, ref

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cyclestyle.errors import CheckpointError
from cyclestyle.metrics.texture import texture_statistics
from cyclestyle.networks.vgg import build_vgg
from cyclestyle.weights.checkpoints import read_checkpoint
from cyclestyle.weights.vgg import load_vgg

RECENT = 4
"""Tensors whose feature maps an extractor keeps: input, translation, reconstruction and truth."""

ExtractorName = Literal["statistics", "squeezenet", "vgg", "vgg16", "inception"]


class Extractor(nn.Module, ABC):
    """Computes feature maps and embeddings of images `(N, 3, H, W)` in [-1, 1].

    Images are first rounded to 8 bits and resized to `size` × `size` by bicubic interpolation with antialiasing (Parmar
    et al. 2022, clean-fid). If `size` is None, they are not changed.

    Attributes:
        name: name of the extractor in results.
        size: height and width of the resized images, or None.
        scaled: whether embeddings are scaled to norm √C, for which the kernel of KID depends only on their angle.
    """

    name: str = ""
    size: int | None = None
    scaled = False

    def __init__(self) -> None:
        super().__init__()
        self._recent: deque[tuple[ReferenceType[Tensor], int, Tensor]] = deque(maxlen=RECENT)

    def maps(self, images: Tensor) -> Tensor:
        """Return feature maps `(N, C, h, w)`.

        Those of the last few tensors are kept, because several metrics ask for the same.
        """
        changes = 0 if images.is_inference() else images._version  # inference tensors do not count them
        for reference, version, known in self._recent:
            if reference() is images and version == changes:
                return known
        found = self._maps(images if self.size is None else resized(images, self.size))
        self._recent.append((ref(images), changes, found))
        return found

    def forward(self, images: Tensor) -> Tensor:
        """Return embeddings `(N, C)`, the mean of each feature map."""
        means = self.maps(images).mean(dim=(2, 3))
        return F.normalize(means, dim=1) * means.shape[1] ** 0.5 if self.scaled else means

    @abstractmethod
    def _maps(self, images: Tensor) -> Tensor:
        """Return feature maps of images of the size of the extractor."""


class Statistics(Extractor):
    """Mean, standard deviation and covariance of RGB, and mean and standard deviation of oriented contrast."""

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
        return torch.cat([colour, texture / 4], dim=1)  # log contrast has a range of about 4, colours of 2


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
        caffe = weights is not None and weights.suffix == ".onnx"  # BGR, 0 to 255, minus a mean
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


class VGG16(Extractor):
    """VGG-16 up to the last activation before its last pooling."""

    name = "vgg16"
    size = 224
    scaled = True

    def __init__(self, weights: Path | None) -> None:
        super().__init__()
        self.network = load_vgg(["relu5_3"], weights=None if weights is None else str(weights), name="vgg16")

    def _maps(self, images: Tensor) -> Tensor:
        result: Tensor = self.network(images)["relu5_3"]
        return result


class Inception(Extractor):
    """Inception v3 of torch-fidelity; `forward` returns the features used for FID and KID in the literature."""

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
    """Build a frozen extractor in evaluation mode.

    Raises:
        ValueError: the name is unknown.
        CheckpointError: the weights are missing, of another network, or cannot be downloaded.
    """
    if name not in get_args(ExtractorName):
        raise ValueError(f"extractor must be one of {', '.join(get_args(ExtractorName))}, got {name!r}")
    path = None if weights is None else Path(weights)
    if path is not None and not path.is_file():
        raise CheckpointError(f"the extractor's weights {path} do not exist")
    kinds: dict[str, Callable[[Path | None], Extractor]] = {
        "squeezenet": SqueezeNet,
        "vgg": NormalisedVGG,
        "vgg16": VGG16,
        "inception": Inception,
    }
    try:
        extractor = kinds[name](path) if name in kinds else Statistics()
    except OSError as error:  # the weights cannot be downloaded
        raise CheckpointError(
            f"cannot fetch the weights of the extractor {name} ({error}); set its weights to a file, "
            "or choose the extractor statistics, which needs none"
        ) from error
    return extractor.eval().requires_grad_(False)


def resized(images: Tensor, size: int) -> Tensor:
    """Round images `(N, 3, H, W)` in [-1, 1] to 8 bits and resize them to `size` × `size`."""
    levels = ((images + 1) * 127.5).round().clamp(0, 255)
    if levels.shape[2:] != (size, size):
        levels = F.interpolate(levels, size=(size, size), mode="bicubic", antialias=True).clamp(0, 255)
    return levels / 127.5 - 1


def read_onnx(path: Path) -> dict[str, Tensor]:
    """Read the weights of SqueezeNet 1.1 from an ONNX file, under the parameter names of torchvision.

    Raises:
        CheckpointError: the package onnx is missing, or the file contains another network.
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
    except Exception as error:  # protobuf raises exceptions of several types
        raise CheckpointError(f"{path} is not a SqueezeNet 1.1") from error
    return weights


# Index in the features of torchvision of each fire module of the paper.
_FIRE = {2: 3, 3: 4, 4: 6, 5: 7, 6: 9, 7: 10, 8: 11, 9: 12}
_TORCHVISION = {"conv1": "features.0", "conv10": "classifier.1"} | {
    f"fire{fire}/{part}": f"features.{index}.{part.replace('squeeze1x1', 'squeeze')}"
    for fire, index in _FIRE.items()
    for part in ("squeeze1x1", "expand1x1", "expand3x3")
}
