"""The one table of metrics: name, label, unit, which way is better, and function.

Evaluation, `score`, `compare` and the reports read it. A metric of images is a function of an extractor and of the
images that it names; it is measured wherever these are given:

| image | what it is |
|---|---|
| `input` | the image that is translated |
| `translation` | its translation |
| `reconstruction` | the translation translated back |
| `truth` | the true counterpart of the input |
| `gram` | not an image: the mean Gram matrix of the target domain, see `mean_gram` |

A metric of sets is a function of the embeddings of both domains and of the translations. The figure of several
images is the mean over them; where there are several figures an image, it is the largest of the means.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure

from cyclestyle.functional.float64 import to_float64
from cyclestyle.metrics.checkerboard import checkerboard, checkerboard_spectrum
from cyclestyle.metrics.distances import content_distance, set_distance, structure_distance, style_distance
from cyclestyle.metrics.features import Extractor
from cyclestyle.metrics.probe import Probe
from cyclestyle.metrics.texture import texture_distance

ImageName = Literal["input", "translation", "reconstruction", "truth", "gram"]

Figures = dict[str, float | list[float]]
"""What is measured of one image: a number, or several, for each metric."""


@dataclass(frozen=True, kw_only=True)
class Metric:
    """What is known of a metric.

    Attributes:
        label: its heading in tables and diagrams.
        better: which way is better.
        unit: of its values; empty for none.
        images: the images that `function` takes after the extractor; empty for a metric of sets.
        function: of an extractor and batches `(N, 3, H, W)` in [-1, 1], to `(N,)` or, with several figures, `(N, K)`.
        digits: significant digits in tables.
    """

    label: str
    better: Literal["lower", "higher"]
    unit: str = ""
    images: tuple[ImageName, ...] = ()
    function: Callable[..., Tensor] | None = None
    digits: int = 4

    @property
    def heading(self) -> str:
        """The label, the unit, and an arrow that points to the better side."""
        unit = f", {self.unit}" if self.unit else ""
        return f"{self.label}{unit} {'↓' if self.better == 'lower' else '↑'}"

    def text(self, value: float | None, deviation: float | None = None) -> str:
        """Return a value as tables show it: `n/a` where it could not be computed."""
        if value is None or not math.isfinite(value):
            return "n/a"
        spread = "" if deviation is None or not math.isfinite(deviation) else f" ± {deviation:.2g}"
        return f"{value:.{self.digits}g}{spread}"


def _psnr(extractor: Extractor, first: Tensor, second: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB of images in [-1, 1]; 120 dB for equal images."""
    errors = to_float64(first - second).square().mean(dim=(1, 2, 3))
    return 10 * torch.log10(4 / errors.clamp(min=4e-12))


def _ssim(extractor: Extractor, first: Tensor, second: Tensor) -> Tensor:
    """Structural similarity (Wang et al. 2004)."""
    found = structural_similarity_index_measure(second, first, data_range=2.0, reduction="none")
    assert isinstance(found, Tensor)
    return found.reshape(len(first))


def _texture(extractor: Extractor, first: Tensor, second: Tensor) -> Tensor:
    return texture_distance(second, first)


def _checkerboard(extractor: Extractor, images: Tensor) -> Tensor:
    return checkerboard(images)


def _checkerboard_spectrum(extractor: Extractor, images: Tensor) -> Tensor:
    return checkerboard_spectrum(images)


METRICS: dict[str, Metric] = {
    "style": Metric(label="style", better="lower", images=("translation", "gram"), function=style_distance),
    "kid": Metric(label="KID", better="lower"),
    "fid": Metric(label="FID", better="lower"),
    "kid_half": Metric(label="KID at ½ size", better="lower"),
    "probe": Metric(label="probe", better="higher", digits=2),
    "probe_half": Metric(label="probe at ½ size", better="higher", digits=2),
    "content": Metric(label="content", better="lower", images=("input", "translation"), function=content_distance),
    "structure": Metric(
        label="structure", better="lower", images=("input", "translation"), function=structure_distance
    ),
    "cycle_psnr": Metric(
        label="cycle PSNR", unit="dB", better="higher", images=("input", "reconstruction"), function=_psnr
    ),
    "cycle_ssim": Metric(label="cycle SSIM", better="higher", images=("input", "reconstruction"), function=_ssim),
    "checkerboard": Metric(
        label="checkerboard", better="lower", images=("translation",), function=_checkerboard, digits=2
    ),
    "checkerboard_worst": Metric(
        label="worst frequency", better="lower", images=("translation",), function=_checkerboard_spectrum, digits=2
    ),
    "psnr": Metric(label="PSNR", unit="dB", better="higher", images=("truth", "translation"), function=_psnr),
    "ssim": Metric(label="SSIM", better="higher", images=("truth", "translation"), function=_ssim),
    "perceptual": Metric(
        label="perceptual", better="lower", images=("truth", "translation"), function=content_distance
    ),
    "texture_distance": Metric(label="texture", better="lower", images=("truth", "translation"), function=_texture),
}
"""Every metric by its name in logs and JSON files, in the order of the columns of a table."""


def measure_images(extractor: Extractor, images: Mapping[ImageName, Tensor]) -> list[Figures]:
    """Return every metric whose images are given, for each of the N images.

    Args:
        extractor: of features.
        images: batches `(N, 3, H, W)` in [-1, 1], and `gram`, `(C, C)`.
    """
    found = {
        name: metric.function(extractor, *(images[one] for one in metric.images)).tolist()
        for name, metric in METRICS.items()
        if metric.function is not None and set(metric.images) <= images.keys()
    }
    return [dict(zip(found, each, strict=True)) for each in zip(*found.values(), strict=True)]


def summarise(images: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return the figure of several images for each metric of images: the mean, or the largest of the means.

    Images that a metric was not measured of, such as those without a true counterpart, are left out of it.
    """
    given = {name for image in images for name in image}
    names = [name for name, metric in METRICS.items() if metric.function is not None and name in given]
    each = {
        name: torch.tensor([image[name] for image in images if name in image], dtype=torch.float64) for name in names
    }
    return {name: figures.mean(dim=0).max().item() for name, figures in each.items()}


def measure_sets(domain: Tensor, translations: Tensor, extractor: str) -> dict[str, Any]:
    """Return KID, its deviation and FID between embeddings `(N, C)`, with the extractor and the counts.

    With fewer than two images in a set the distances are NaN.
    """
    if min(len(domain), len(translations)) >= 2:
        return set_distance(domain, translations, extractor)._asdict()
    counts = {"reals": len(domain), "fakes": len(translations)}
    return {"kid": math.nan, "kid_std": math.nan, "fid": math.nan, "extractor": extractor, **counts}


def measure_domains(source: Tensor, target: Tensor, translations: Tensor, extractor: str) -> dict[str, Any]:
    """Return what `measure_sets` does, KID at half size, and the shares that a `Probe` takes for the target domain.

    A texture that nobody sees as paint can lower KID at full size. It is hardly there at half size.

    Args:
        source: embeddings of the source domain, as `embed` returns them, `(N, 2, C)`.
        target: those of the target domain.
        translations: those of the translations.
        extractor: the name of what made them.
    """
    full, half = (measure_sets(target[:, size], translations[:, size], extractor) for size in (0, 1))
    judged = min(len(source), len(target)) >= 2
    shares = [
        Probe.fit(source[:, size], target[:, size]).share(translations[:, size]) if judged else math.nan
        for size in (0, 1)
    ]
    return {**full, "kid_half": half["kid"], "probe": shares[0], "probe_half": shares[1]}


def embed(extractor: Extractor, images: Tensor) -> Tensor:
    """Return the embeddings of images at full and at half size: `(N, 3, H, W)` → `(N, 2, C)`."""
    height, width = (max(1, side // 2) for side in images.shape[-2:])
    halves = F.interpolate(images, (height, width), mode="bicubic", antialias=True).clamp(-1, 1)
    return torch.stack([extractor(images), extractor(halves)], dim=1)


def mean(values: Sequence[float]) -> float:
    """Return the mean; NaN if empty."""
    return sum(values) / len(values) if values else math.nan


def finite(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row of figures for JSON, which has no NaN: null stands for what could not be computed."""
    return {key: None if isinstance(one, float) and not math.isfinite(one) else one for key, one in row.items()}


def columns(names: Iterable[str]) -> list[str]:
    """Return the metrics among `names`, in the order of the table."""
    given = set(names)
    return [name for name in METRICS if name in given]
