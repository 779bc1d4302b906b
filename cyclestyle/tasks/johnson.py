"""Feed-forward style transfer: a network for one style (Johnson et al. 2016), or for many (Dumoulin et al. 2017)."""

import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cyclestyle.errors import CycleStyleError, DataError
from cyclestyle.functional.style import GramNormalisation, content_loss, gram_matrix, style_loss, total_variation
from cyclestyle.images import read_image, to_tensor
from cyclestyle.images.folders import find_images
from cyclestyle.networks.calls import call_at_any_size
from cyclestyle.networks.method import Direction
from cyclestyle.networks.one_pass import OnePass
from cyclestyle.networks.styles import Mixture, normalised_weights, with_shares
from cyclestyle.networks.transform import OUTPUT_SCALE, OutputName, TransformNetwork, UpsampleName
from cyclestyle.networks.vgg import VGG, Pooling, VGGName
from cyclestyle.tasks.base import Batch, Task
from cyclestyle.tasks.checks import check_choices, check_not_negative, check_positive
from cyclestyle.tasks.gatys import resized, working_size
from cyclestyle.weights.contents import read_weights_file
from cyclestyle.weights.foreign import Contents
from cyclestyle.weights.resolve import resolve_checkpoint
from cyclestyle.weights.vgg import load_vgg

STYLE_LAYERS = ("relu1_2", "relu2_2", "relu3_3", "relu4_3")


@dataclass(frozen=True, kw_only=True)
class Preset:
    """Loss weights and output of a published implementation.

    Attributes:
        content_layers: VGG layers of the content loss.
        content_weight: factor of the mean squared difference of activations.
        style_weight: factor of the mean squared difference of Gram matrices, for each layer.
        tv_weight: factor of the squared differences of neighbouring pixels of 0 to 255, summed over the batch.
        output: of the network, see `TransformNetwork`.
        original: whether the weights are for the activations of `VGG.scale_as_original`, and not for those of
            torchvision's networks, which are left as they are.
        gram: divisor of the Gram matrices, see `gram_matrix`.
        pooling: of the VGG.
    """

    content_layers: tuple[str, ...]
    content_weight: float
    style_weight: float
    tv_weight: float
    output: OutputName
    original: bool
    gram: GramNormalisation = "elements"
    pooling: Pooling = "max"


PRESETS = {
    # Johnson, Alahi & Fei-Fei 2016, the authors' code in Torch.
    "reference": Preset(
        content_layers=("relu3_3",), content_weight=1, style_weight=5, tv_weight=1e-6, output="tanh", original=True
    ),
    # PyTorch's fast_neural_style, https://github.com/pytorch/examples
    "pytorch_example": Preset(
        content_layers=("relu2_2",), content_weight=1e5, style_weight=1e10, tv_weight=0, output="levels", original=False
    ),
    # Dumoulin, Shlens & Kudlur 2017, the authors' code in Magenta.
    "magenta": Preset(
        content_layers=("relu3_3",), content_weight=1, style_weight=1e-4, tv_weight=0, output="sigmoid", original=True,
        gram="pixels", pooling="average",
    ),
}  # fmt: skip


class Johnson(Task):
    """Trains a `TransformNetwork` to match the content of photos and the style of paintings in VGG features.

    Johnson, Alahi & Fei-Fei 2016, *Perceptual Losses for Real-Time Style Transfer and Super-Resolution*, with
    instance norm (Ulyanov et al. 2016). `cyclestyle predict --ckpt_path <run>/checkpoints/last.ckpt` paints photos of
    any size with the trained network, and needs neither the paintings nor the VGG.

    With `conditional`, each painting is a style of its own, named after its file, and one network learns them all
    (Dumoulin, Shlens & Kudlur 2017, *A Learned Representation for Artistic Style*): a style is a scale and a shift
    after each convolution. Each training image gets a random style, each held-out one the style that its name is hashed
    to. `use_styles` mixes the styles by weights; in `predict`, masks give each style a region.

    | logged name | weighted loss term |
    |---|---|
    | `train/content` | mean squared difference of the content layers' activations, summed over the layers |
    | `train/style` | mean squared difference of Gram matrices, summed over the layers |
    | `train/tv` | squared differences of neighbouring pixels in levels of 0 to 255, summed over the batch |
    | `train/loss` | their sum |

    `val/…` are the same for the validation photos. The weights are those of `PRESETS`. Those of `reference` are for the
    network of Simonyan & Zisserman: the activations of others, such as torchvision's or the normalised VGG-19, are
    rescaled to its own by `VGG.scale_as_original` on the paintings. Those of `pytorch_example` are for torchvision's
    VGG-16; with weights of larger activations, style outweighs content more than in the example.

    Args:
        style: files of the style images, or folders of them.
        style_weights: weight of each style image in the average of the Gram matrices; equal by default. With
            `conditional`: factor of the style loss of each style; 1 by default.
        conditional: learn each style image as a style of its own, instead of the average of their Gram matrices.
        style_names: names of the styles; filled in, from the files.
        extend: a checkpoint with `conditional`, whose styles and shared weights stay as they are; the scales and shifts
            of the images in `style` are trained and added.
        style_size: square root of the number of pixels that style images are resized to; none is enlarged.
        network: `vgg16` or `vgg19`.
        weights: a file of VGG weights, `random`, or None for the weights of torchvision.
        features: a checkpoint of the autoencoder, whose encoder is used instead of a VGG; its layers are those of
            VGG-19, as far as it goes.
        preset: `reference` (the authors' code), `pytorch_example` or `magenta` (Dumoulin et al.): loss weights, output
            of the network, and the default of `content_layers`.
        content_layers: VGG layers of the content loss.
        style_layers: VGG layers of the style loss.
        content_weight: factor of the content loss of the preset.
        style_weight: factor of the style loss of the preset.
        tv_weight: factor of the total-variation loss of the preset.
        upsample: `resize` (no checkerboard artefacts) or `transpose`.
        output: what the network's last convolution gives, `tanh`, `levels` or `sigmoid`; see `TransformNetwork`. None:
            that of the preset.
        width: output channels of the first convolution.
        lr: learning rate of Adam.
        schedule: the options of the learning rate that every `Task` has, such as `lr_policy`.

    Raises:
        ValueError: a value is out of its range, or a layer is unknown.
    """

    in_bfloat16 = ("translating",)
    architecture = ("width", "upsample", "output", "preset", "conditional", "style_names")
    filled_in = ("style_names",)

    def __init__(
        self,
        *,
        style: list[str] | None = None,
        style_weights: list[float] | None = None,
        conditional: bool = False,
        style_names: list[str] | None = None,
        extend: str | None = None,
        style_size: int = 256,
        network: VGGName = "vgg16",
        weights: str | None = None,
        features: str | None = None,
        preset: Literal["reference", "pytorch_example", "magenta"] = "reference",
        content_layers: list[str] | None = None,
        style_layers: Sequence[str] = STYLE_LAYERS,
        content_weight: float = 1.0,
        style_weight: float = 1.0,
        tv_weight: float = 1.0,
        upsample: UpsampleName = "resize",
        output: OutputName | None = None,
        width: int = 32,
        lr: float = 1e-3,
        **schedule: Any,
    ) -> None:
        super().__init__(**schedule)
        check_choices(preset=(preset, tuple(PRESETS)))
        check_positive(style_size=style_size, style_weight=style_weight, lr=lr)
        check_not_negative(content_weight=content_weight, tv_weight=tv_weight)
        if not style_layers:
            raise ValueError("style_layers must name at least one layer, got none")
        if (extend or style_names) and not conditional:
            raise ValueError("extend and style_names are for networks of many styles; set conditional to true")
        self.save_hyperparameters()
        self.preset = PRESETS[preset]
        self.style, self.style_weights, self.style_size = style or [], style_weights, style_size
        self.network: VGGName = "vgg19" if features else network
        self.weights, self.encoder = weights, features
        self.content_layers = _unique(self.preset.content_layers if content_layers is None else content_layers)
        self.style_layers = _unique(style_layers)
        with torch.device("meta"):  # raises an error for an unknown layer without allocating memory
            VGG([*self.content_layers, *self.style_layers], name=self.network)
        self.factors = {
            "content": content_weight * self.preset.content_weight,
            "style": style_weight * self.preset.style_weight,
            "tv": tv_weight * self.preset.tv_weight,
        }
        self.lr = lr
        base = None
        if conditional and style_names is None:  # a new network, not one from a checkpoint
            base = None if extend is None else _base(extend, self.hparams)
            known = [] if base is None else base.settings["style_names"]
            style_names = [*known, *(path.stem for path in self._paintings())]
            if twice := [name for name in style_names if style_names.count(name) > 1]:
                raise ValueError(
                    f"two paintings are called {twice[0]}; styles have the names of their files: rename one"
                )
            self.hparams["style_names"] = style_names
        self.style_names = tuple(style_names or ())
        self.takes_masks = conditional
        self.known = 0  # styles of the network that is extended, which are not trained
        self.mixture: Mixture | None = None  # of the styles, in translations
        self.transform = TransformNetwork(
            upsample=upsample, output=output or self.preset.output, width=width, styles=len(self.style_names)
        )
        if preset == "pytorch_example" and isinstance(self.transform.last, nn.Conv2d):  # its images begin near black
            assert self.transform.last.bias is not None
            with torch.no_grad():
                self.transform.last.bias.sub_(OUTPUT_SCALE)
        if base is not None:
            self.transform.load_state_dict(_with_new_styles(base.weights, self.transform.state_dict()))
        if extend is not None:
            for name, parameter in self.transform.named_parameters():
                parameter.requires_grad_(".norm." in name)
        # A tuple does not register the VGG as a submodule, so checkpoints and optimisers do not contain it.
        self.perceptual: tuple[PerceptualLoss, ...] = ()

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Return the weighted loss terms of Johnson et al. 2016, eq. 5, each image with its own style."""
        photos: Tensor = batch["images"]
        perceptual = self.perceptual[0].to(photos)
        height, width = photos.shape[-2:]
        if min(height, width) < perceptual.features.min_size:
            raise DataError(
                f"photos of {width}×{height} are too small for {perceptual.features.names[-1]}, which needs "
                f"{perceptual.features.min_size} pixels; raise data.crop_size"
            )
        styles = self._styles_of(batch) if self.style_names else None
        painted = self._paint(photos, styles)
        content, style = perceptual(painted, photos, None if styles is None else styles - self.known)
        variation = total_variation(painted * OUTPUT_SCALE, "sum")
        losses = {"content": content, "style": style, "tv": variation}
        return {name: self.factors[name] * loss for name, loss in losses.items()}

    def _styles_of(self, batch: Batch) -> Tensor:
        """The number of the style of each image, `(N,)`: random in training, else a hash of the file's name."""
        images: Tensor = batch["images"]
        if self.training:
            return torch.randint(self.known, len(self.style_names), images.shape[:1], device=images.device)
        # The images of a grid have no names: they get the styles in turn.
        names = [Path(path).name for path in batch["paths"]] if "paths" in batch else None
        numbers = range(len(images)) if names is None else [zlib.crc32(name.encode()) for name in names]
        new = len(self.style_names) - self.known
        return torch.tensor([self.known + number % new for number in numbers], device=images.device)

    def _paint(self, photos: Tensor, styles: Tensor | None) -> Tensor:
        if styles is None:
            painted: Tensor = self.transform(photos)
        else:
            shares = F.one_hot(styles, len(self.style_names)).to(photos.dtype)
            painted = self.transform(photos, shares[:, :, None, None])
        return painted

    @torch.no_grad()
    def sample(self, batch: Batch) -> dict[str, Tensor]:
        """Return the photos and their stylisations."""
        styles = self._styles_of(batch) if self.style_names else None
        return {"photo": batch["images"], "painted": self._paint(batch["images"], styles)}

    def use_styles(self, styles: Sequence[Any], weights: Sequence[float] | None = None) -> None:
        """Translate with a style of a network of many, or with a mixture.

        Args:
            styles: names in `style_names`.
            weights: the share of each; they are normalised to sum to 1. Equal by default.

        Raises:
            CycleStyleError: the network has one style, a name is unknown, or the weights do not fit the names.
        """
        if not self.style_names:
            super().use_styles(styles, weights)
        self.mixture = Mixture.of(styles, self.style_names, weights)

    def translate(self, images: Tensor, direction: Direction) -> Tensor:
        """Paint photos of any size; `direction` is ignored. Regions of styles are further channels; see `Mixture`."""
        if not self.style_names:
            return call_at_any_size(self.transform, images)
        mixture = self.mixture or Mixture.of(self.style_names[:1], self.style_names)
        return mixture.paint(self.transform, images)

    def exported(self, direction: Direction) -> OnePass:
        """Return the trained network; that of many styles takes their shares, `(1, styles)`, as its second input."""
        if not self.style_names:
            return OnePass.of(self.transform, self.transform.in_channels)
        return with_shares(self.transform, self.style_names)

    @property
    def settings(self) -> dict[str, Any]:
        """The constructor arguments, with the output that the preset has chosen."""
        return {**self.hparams, "output": self.transform.output}

    def setup(self, stage: str) -> None:
        """Load the style images and the VGG, which `predict` does not need.

        Raises:
            CycleStyleError: `style` is empty, or the number of weights is not that of the style images.
            ImageError: a style image is missing or not an image.
            CheckpointError: the VGG weights are missing or do not contain a layer.
        """
        super().setup(stage)
        if stage == "predict" or self.perceptual:
            return
        if not self.style:
            raise CycleStyleError("no painting: list files in model.style")
        paintings = [to_tensor(read_image(path))[None] for path in self._paintings()]
        shares = normalised_weights(len(paintings), self.style_weights)
        layers = [*self.content_layers, *self.style_layers]
        features = load_vgg(
            layers, weights=self.weights, name=self.network, pooling=self.preset.pooling, features=self.encoder
        )
        sizes = [working_size(painting.shape, self.style_size, features.min_size) for painting in paintings]
        resized_paintings = [resized(painting, size) for painting, size in zip(paintings, sizes, strict=True)]
        if self.preset.original:
            features.scale_as_original(resized_paintings)
        perceptual = PerceptualLoss(features, self.content_layers, self.style_layers, self.preset.gram)
        perceptual.keep(resized_paintings, shares, each=bool(self.style_names))
        self.known = len(self.style_names) - len(paintings) if self.style_names else 0
        self.perceptual = (perceptual,)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Check that the styles are those of the checkpoint, and restore what every task has.

        Raises:
            CycleStyleError: they are not.
        """
        stored = checkpoint.get("hyper_parameters", {}).get("style_names")
        if stored is not None and tuple(stored) != self.style_names:
            raise CycleStyleError(
                f"the checkpoint has the styles {', '.join(stored)}, but model.style gives "
                f"{', '.join(self.style_names)}; name the same paintings, or start again in another folder"
            )
        super().on_load_checkpoint(checkpoint)

    def _paintings(self) -> list[Path]:
        """The style images; those in folders are sorted by their names."""
        return [path for word in map(Path, self.style) for path in (find_images(word) if word.is_dir() else [word])]


class PerceptualLoss(nn.Module):
    """Content and style loss in the features of a VGG.

    Args:
        features: a frozen VGG that returns all layers.
        content_layers: layers of the content loss.
        style_layers: layers of the style loss.
        gram: divisor of the Gram matrices, see `gram_matrix`.
    """

    def __init__(
        self,
        features: VGG,
        content_layers: Sequence[str],
        style_layers: Sequence[str],
        gram: GramNormalisation = "elements",
    ) -> None:
        super().__init__()
        self.features = features
        self.shallow = _truncated(content_layers, features)
        self.content_layers, self.style_layers, self.gram = content_layers, style_layers, gram

    @torch.no_grad()
    def keep(self, paintings: Sequence[Tensor], shares: Sequence[float], *, each: bool = False) -> None:
        """Store the Gram matrices of style images `(1, 3, H, W)`.

        Args:
            paintings: the style images.
            shares: weights of the style images, with a sum of 1.
            each: whether each is a style, whose loss is multiplied by its share and the number of styles; otherwise the
                style is their average, weighted by the shares.
        """
        activations = [self.features(painting) for painting in paintings]
        weights = torch.tensor(shares)
        self.register_buffer("factors", weights * len(shares) if each else weights.new_ones(1))
        for layer in self.style_layers:
            grams = torch.cat([gram_matrix(features[layer], self.gram) for features in activations])
            mean = (weights.to(grams)[:, None, None] * grams).sum(0, keepdim=True)
            self.register_buffer(layer, grams if each else mean)  # (styles, C, C)

    def forward(self, painted: Tensor, photos: Tensor, styles: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the unweighted content and style loss of images `(N, 3, H, W)`.

        Args:
            painted: the translations.
            photos: whose content they should have.
            styles: the number of the style of each image, `(N,)`; None if there is only one.
        """
        with torch.no_grad():
            target = self.shallow(photos)
        numbers = torch.zeros(len(photos), dtype=torch.long, device=photos.device) if styles is None else styles
        contents, losses = [photos.new_zeros(())], []
        for layer, features in self.features.activations(painted):
            if layer in self.content_layers:
                contents.append(content_loss(features, target[layer]))
            if layer in self.style_layers:
                # The factor of a style multiplies its squared differences.
                root = self.get_buffer("factors").sqrt()[numbers, None, None]
                grams = gram_matrix(features, self.gram)
                losses.append(style_loss(root * grams, root * self.get_buffer(layer)[numbers]))
        return torch.stack(contents).sum(), torch.stack(losses).sum()


def _base(path: str, settings: Mapping[str, Any]) -> Contents:
    """Return the network that new styles are added to."""
    contents, _ = read_weights_file(resolve_checkpoint(path), "auto")
    if contents.task != "Johnson" or not contents.settings.get("conditional"):
        raise CycleStyleError(f"{path} is no network of many styles; name one that was trained with model.conditional")
    for setting in ("width", "upsample", "output", "preset"):
        theirs = contents.settings.get(setting, settings[setting])
        if theirs != settings[setting]:
            raise CycleStyleError(f"{path} has model.{setting} {theirs}, not {settings[setting]}; set both to the same")
    return contents


def _with_new_styles(weights: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights of a network, with styles added that begin as the mean of those that it has."""

    def extended(old: Tensor, count: int) -> Tensor:
        return torch.cat([old, old.mean(0, keepdim=True).expand(count - len(old), *old.shape[1:])])

    given = {key: weights[f"transform.{key}"].float() for key in state}
    return {key: extended(given[key], len(value)) if ".norm." in key else given[key] for key, value in state.items()}


def _truncated(layers: Iterable[str], vgg: VGG) -> VGG:
    """Return the part of `vgg` up to the deepest of `layers`. The weights are shared."""
    shallow = VGG(layers, name=vgg.name, pooling=vgg.pooling)
    shallow.input_transform, shallow.convolutions = vgg.input_transform, vgg.convolutions[: len(shallow.convolutions)]
    return shallow


def _unique(layers: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(layers))
