"""Style transfer in the feature space of an autoencoder: AdaIN (Huang & Belongie 2017) and WCT (Li et al. 2017)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cyclestyle.data.sample import draw_scene, take_photo
from cyclestyle.errors import CheckpointError, CycleStyleError
from cyclestyle.functional.colour import ColourTransfer
from cyclestyle.functional.style import adaptive_instance_norm, mean_std_loss, whiten_and_colour
from cyclestyle.networks.autoencoder import AdaIN, Decoder, read_decoder
from cyclestyle.networks.calls import pad_to_multiple
from cyclestyle.networks.initialisation import initialise
from cyclestyle.networks.method import Direction
from cyclestyle.networks.one_pass import OnePass
from cyclestyle.networks.styles import normalised_weights
from cyclestyle.networks.vgg import VGG, WIDTHS, VGGName, stride
from cyclestyle.tasks.base import Batch, Task, total
from cyclestyle.tasks.checks import check_choices, check_positive
from cyclestyle.weights.checkpoints import read_checkpoint
from cyclestyle.weights.vgg import load_vgg

Encoder = Literal["scratch", "vgg19", "vgg16"]
Transfer = Literal["wct", "adain"]
Mode = Literal["joint", "separate"]
Objective = Literal["reconstruction", "adain"]


class Autoencoder(Task):
    """An encoder with the architecture of VGG, and a decoder for the first activation of each of its blocks.

    Stylisation replaces the statistics of the features of a photo by those of a painting: the mean and standard
    deviation of each channel (AdaIN), or the mean and covariance of all channels (WCT). WCT repeats this for each
    block, starting with the deepest; AdaIN uses only the deepest block.

    Trained on batches of `UnpairedImages` with one of two objectives:

    - `reconstruction`: the mean squared error of the reconstructed images and, with a VGG encoder, `feature_weight`
      times that of their features (Li et al. 2017, eq. 1). An encoder from scratch is trained with its decoders.
    - `adain`: the deepest decoder paints A in the styles of B. The loss is the mean squared error between the features
      of its output and the output of AdaIN, plus `style_weight` times `mean_std_loss` summed over all blocks
      (Huang & Belongie 2017, eq. 11 to 13).

    Args:
        encoder: `scratch` (trained here, no file needed), `vgg19` or `vgg16` (frozen).
        weights: for a VGG, a file of its weights, `random`, or None for the weights of torchvision. The first layer of
            each block is scaled to a mean activation of 1, which the normalised VGG-19 has already.
        decoders: files of trained decoders, such as the published ones of WCT; the level is inferred from the shapes.
        level: deepest block, 1 to 5.
        width: channels of the first block of an encoder from scratch; the number doubles with each block.
        objective: `reconstruction` or `adain`.
        style_weight: weight of the style loss relative to the content loss, for `adain`.
        feature_weight: weight of the feature loss relative to the pixel loss, for a VGG encoder.
        recolour: for `reconstruction`, train on images with exchanged and inverted colour channels too. Images of any
            colours are then encoded apart, which `--model.features` needs: Gatys and Johnson search among all images.
        content_domain: domain of the photos, `A` or `B`, for `adain`.
        lr: learning rate of Adam.
        transfer: `wct` or `adain`.
        transfer_level: deepest block whose statistics are transferred; None: `level`. Fewer blocks keep more detail,
            and change colours and fine texture alone.
        mode: `joint` (the statistics of the style replace those of the photo) or `separate` (colours and texture of
            the style are transferred separately, each with its own strength).
        strength: α in [0, 1], the interpolation between the statistics of the photo (0) and of the style (1).
        colour_strength: for `separate`, the interpolation between the colours of the photo and of the style, in [0, 1].
        schedule: the options of the learning rate that every `Task` has, such as `lr_policy`.

    Raises:
        ValueError: a value is out of its range.
    """

    directions = ("AtoB", "BtoA")
    architecture = ("encoder", "level", "width")
    averaged = ("encoder", "decoders")
    takes_styles = True
    strength: float

    def __init__(
        self,
        *,
        encoder: Encoder = "scratch",
        weights: str | None = None,
        decoders: Sequence[str] = (),
        level: int = 3,
        width: int = 32,
        objective: Objective = "reconstruction",
        style_weight: float = 10.0,
        feature_weight: float = 1.0,
        recolour: bool = False,
        content_domain: Literal["A", "B"] = "A",
        lr: float = 1e-3,
        transfer: Transfer = "wct",
        transfer_level: int | None = None,
        mode: Mode = "joint",
        strength: float = 0.6,
        colour_strength: float = 1.0,
        **schedule: Any,
    ) -> None:
        super().__init__(**schedule)
        check_choices(encoder=(encoder, get_args(Encoder)), transfer=(transfer, get_args(Transfer)))
        check_choices(mode=(mode, get_args(Mode)), objective=(objective, get_args(Objective)))
        if not 1 <= level <= 5:
            raise ValueError(f"level must be 1 to 5, got {level}")
        if transfer_level is not None and not 1 <= transfer_level <= level:
            raise ValueError(f"transfer_level must be 1 to level, which is {level}, got {transfer_level}")
        for name, value in (("strength", strength), ("colour_strength", colour_strength)):
            if not 0 <= value <= 1:
                raise ValueError(f"{name} must be in [0, 1], got {value}")
        if objective == "adain" and encoder == "scratch":
            raise ValueError("objective adain needs an encoder that is trained already: set encoder to vgg19 or vgg16")
        if objective == "adain" and transfer_level not in (None, level):
            raise ValueError("objective adain trains the deepest decoder alone: leave transfer_level out")
        if objective == "adain" and transfer == "wct":
            raise ValueError("objective adain trains the deepest decoder alone, wct needs all: set transfer to adain")
        check_positive(lr=lr, width=width)
        self.save_hyperparameters()
        self.level, self.objective, self.content_domain, self.lr = level, objective, content_domain, lr
        self.transfer_level = transfer_level or level
        self.style_weight, self.feature_weight = style_weight, feature_weight
        self.transfer, self.mode, self.recolour = transfer, mode, recolour
        self.strength, self.colour_strength = strength, colour_strength
        self.trains_encoder = encoder == "scratch"
        widths = [width << block for block in range(len(WIDTHS))] if self.trains_encoder else WIDTHS
        self.network: VGGName = "vgg16" if encoder == "vgg16" else "vgg19"
        self.layers = [f"relu{block}_1" for block in range(1, level + 1)]
        self.encoder = VGG(self.layers, name=self.network, padding="reflect", widths=widths)
        self.decoders = nn.ModuleList(Decoder(block, name=self.network, widths=widths) for block in range(1, level + 1))
        self.files = weights, tuple(decoders)
        self.trained = set(range(1, level + 1)) if objective == "reconstruction" else {level}
        self.loaded = False
        self.styles: list[Tensor] = []
        self.style_weights: list[float] = []
        for network in (self.encoder, self.decoders):
            initialise(network, "kaiming")
        self.encoder.requires_grad_(self.trains_encoder)
        for block, decoder in enumerate(self.decoders, 1):
            assert isinstance(decoder, Decoder)
            decoder.requires_grad_(block in self.trained)
            if not self.trains_encoder:
                decoder.begin_grey()

    # Pretrained weights

    def setup(self, stage: str) -> None:
        """Load the weight files, unless a checkpoint has been loaded.

        Raises:
            CheckpointError: a file is missing or of another kind, or a required decoder has no trained weights.
        """
        super().setup(stage)
        if self.loaded or (self._trainer is not None and self._trainer.ckpt_path):
            return
        weights, files = self.files
        if not self.trains_encoder:
            vgg = load_vgg(self.layers, weights=weights, name=self.network)
            if files and not vgg.normalised:
                raise CheckpointError(
                    "the decoders invert the normalised VGG-19; name its file, as vgg_normalised_conv3_1.pth, with "
                    "--model.weights"
                )
            # The loss weights of both papers are for the normalised VGG-19, whose mean activations are about 1.
            vgg.calibrate([_scene()])
            self.encoder.load_state_dict(vgg.state_dict())
        decoder_states = dict(map(_read_decoder, files))
        for level, state in decoder_states.items():
            if level <= self.level:
                self.decoders[level - 1].load_state_dict(state)
        missing = set() if self.trains_encoder else self._levels_needed() - decoder_states.keys()
        if stage == "predict" and (self.trains_encoder or missing):
            subject = f"the decoders of levels {sorted(missing)} are" if missing else "the networks are"
            raise CheckpointError(f"{subject} not trained: name a checkpoint with --ckpt_path, or set --model.decoders")

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Load the weights of a checkpoint. `setup` then reads no other files."""
        result = super().load_state_dict(state_dict, strict, assign)
        self.loaded = True
        return result

    def _levels_needed(self) -> set[int]:
        return set(range(1, self.transfer_level + 1)) if self.transfer == "wct" else {self.transfer_level}

    # Training

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Return the weighted loss terms of the objective."""
        multiple, minimum = stride(self.layers[-1]), self.encoder.min_size
        A, B = (pad_to_multiple(batch[domain], multiple, minimum) for domain in ("A", "B"))
        if self.objective == "adain":
            return self._adain_losses(A, B) if self.content_domain == "A" else self._adain_losses(B, A)
        losses_A, losses_B = self._reconstruction_losses(A), self._reconstruction_losses(B)
        return {name: losses_A[name] + losses_B[name] for name in losses_A}

    def _reconstruction_losses(self, images: Tensor) -> dict[str, Tensor]:
        """Loss of Li et al. 2017, eq. 1, for the decoder of each block."""
        if self.recolour and self.training:
            images = recoloured(images)
        features = self.encoder(images)
        losses = {}
        for level, layer in enumerate(self.layers, 1):
            decoded = self.decoders[level - 1](features[layer])
            losses[f"pixels_{level}"] = F.mse_loss(decoded, images)
            if not self.trains_encoder:
                losses[f"features_{level}"] = self.feature_weight * F.mse_loss(
                    self.encoder(decoded)[layer], features[layer]
                )
        return losses

    def _adain_losses(self, photos: Tensor, paintings: Tensor) -> dict[str, Tensor]:
        with torch.no_grad():
            content, style = self.encoder(photos), self.encoder(paintings)
            target = adaptive_instance_norm(content[self.layers[-1]], style[self.layers[-1]])
        painted = self.encoder(self.decoders[-1](target))
        return {
            # Huang & Belongie 2017, eq. 12
            "content": F.mse_loss(painted[self.layers[-1]], target),
            # eq. 13
            "style": self.style_weight
            * torch.stack([mean_std_loss(painted[layer], style[layer]) for layer in self.layers]).sum(),
        }

    # Validation

    def figures(self, batch: Batch, sample: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the sum of the loss terms, and the PSNR of the reconstructions of each trained level, in dB."""
        found = {"loss": total(self.losses(batch))}
        for level in sorted(self.trained):
            errors = [F.mse_loss(self.reconstruct(one, level).clamp(-1, 1), one) for one in (batch["A"], batch["B"])]
            found[f"psnr_{level}"] = psnr(torch.stack(errors).mean())
        return {**found, "psnr": found[f"psnr_{self.level}"]}

    @torch.no_grad()
    def sample(self, batch: Batch) -> dict[str, Tensor]:
        """Return the images of both domains, their stylisations by images of the other domain, and reconstructions."""

        def stylised(photos: Tensor, styles: Tensor) -> Tensor:
            pairs = zip(torch.split(photos, 1), torch.split(styles, 1), strict=True)
            return torch.cat([self.stylise(photo, [style], [1.0]) for photo, style in pairs])

        A, B = batch["A"], batch["B"]
        return {
            **{"real_A": A, "fake_B": stylised(A, B), "rec_A": self.reconstruct(A)},
            **{"real_B": B, "fake_A": stylised(B, A), "rec_B": self.reconstruct(B)},
        }

    # Transfer

    def use_styles(self, styles: Sequence[Tensor], weights: Sequence[float] | None = None) -> None:
        """Set the style images, `(3, H, W)` in [-1, 1]. The transferred features are averaged with `weights`."""
        if not styles:
            raise CycleStyleError("no style: name a painting with --style")
        self.styles, self.style_weights = list(styles), normalised_weights(len(styles), weights)

    def translate(self, images: Tensor, direction: Direction) -> Tensor:
        """Paint photos of any size in the styles set by `use_styles`."""
        styles = [style.to(images)[None] for style in self.styles]
        return torch.cat([self.stylise(photo, styles, self.style_weights) for photo in torch.split(images, 1)])

    def exported(self, direction: Direction) -> OnePass:
        """Return AdaIN with the style image as its second input.

        Raises:
            CycleStyleError: the transfer is WCT, which no format can hold, or the mode is `separate`.
        """
        if self.transfer != "adain" or self.mode != "joint":
            raise CycleStyleError(
                "only AdaIN can be exported: add --model.transfer adain --model.mode joint, for which the deepest "
                "decoder has to be trained"
            )
        level = self.transfer_level
        network = AdaIN(self.encoder, self.decoders[level - 1], self.strength, layer=f"relu{level}_1")
        smallest = self.encoder.min_size
        return OnePass(network=network, multiple=stride(self.layers[-1]), min_size=smallest, takes_style=True)

    def reconstruct(self, images: Tensor, level: int | None = None) -> Tensor:
        """Encode and decode images `(N, 3, H, W)` of any size with the decoder of `level`, by default the deepest."""
        level = self.level if level is None else level
        return self._decode(self._encode(images, level), level, images.shape)

    def stylise(self, photo: Tensor, styles: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
        """Stylise a photo `(1, 3, H, W)` with style images `(1, 3, H, W)`, averaged with weights that sum to 1."""
        if self.mode == "joint":
            return self._transfer(photo, styles, weights)
        # Transfer the texture of the paintings in the colours of the photo, then interpolate the colours.
        recoloured = [ColourTransfer.fit([style[0]], [photo[0]])(style[0])[None] for style in styles]
        textured = self._transfer(photo, recoloured, weights)[0].clamp(-1, 1)
        in_photo_colours, *in_style_colours = [
            ColourTransfer.fit([textured], [image[0]])(textured) for image in (photo, *styles)
        ]
        mixed = torch.stack([weight * image for weight, image in zip(weights, in_style_colours, strict=True)]).sum(
            dim=0
        )
        return torch.lerp(in_photo_colours, mixed, self.colour_strength)[None]

    def _transfer(self, photo: Tensor, styles: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
        transfer = whiten_and_colour if self.transfer == "wct" else adaptive_instance_norm
        image = photo
        for level in sorted(self._levels_needed(), reverse=True):
            content = self._encode(image, level)
            targets = [
                weight * transfer(content, self._encode(style, level))
                for style, weight in zip(styles, weights, strict=True)
            ]
            features = torch.lerp(content, sum(targets[1:], targets[0]), self.strength)
            image = self._decode(features, level, image.shape)
        return image

    def _encode(self, images: Tensor, level: int) -> Tensor:
        padded = pad_to_multiple(images, stride(self.layers[-1]), self.encoder.min_size)
        return next(features for layer, features in self.encoder.activations(padded) if layer == f"relu{level}_1")

    def _decode(self, features: Tensor, level: int, shape: Sequence[int]) -> Tensor:
        images: Tensor = self.decoders[level - 1](features)
        return images[..., : shape[-2], : shape[-1]]


def recoloured(images: Tensor) -> Tensor:
    """Permute and invert the colour channels of each image `(3, H, W)` in [-1, 1] of a batch at random."""
    order = torch.rand(len(images), 3, device=images.device).argsort(dim=1)
    signs = torch.randint(0, 2, (len(images), 3, 1, 1), device=images.device) * 2 - 1
    return images.gather(1, order[:, :, None, None].expand_as(images)) * signs


def psnr(error: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB of a mean squared error of images in [-1, 1]."""
    return 10 * torch.log10(4 / error.clamp(min=1e-12))


def _scene() -> Tensor:
    """Return a photo `(1, 3, 256, 256)` of the sample domains, on which activations are measured."""
    random = np.random.default_rng(0)
    pixels = take_photo(draw_scene(random, 256), random)
    return torch.from_numpy(pixels).float().permute(2, 0, 1)[None] * 2 - 1


def _read_decoder(file: str) -> tuple[int, dict[str, Tensor]]:
    weights = read_checkpoint(Path(file))
    try:
        return read_decoder(weights)
    except CheckpointError as error:
        raise CheckpointError(f"{file} {error}") from error
