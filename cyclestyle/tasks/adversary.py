"""The adversarial game of a GAN task: what its generators and discriminators minimise."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from cyclestyle.functional import GanMode, discriminator_loss, generator_loss, gradient_penalty
from cyclestyle.functional.adversarial import check_gan_mode, judged_real, r1_penalty, zero_centred_penalty
from cyclestyle.functional.augmentation import AugmentationName, check_augmentations, diff_augment
from cyclestyle.networks import ProjectedDiscriminator
from cyclestyle.networks.calls import call_on_both, frozen
from cyclestyle.networks.discriminators import members
from cyclestyle.networks.spectral import add_spectral_norm
from cyclestyle.tasks.base import Batch, Task
from cyclestyle.tasks.checks import check_not_negative, check_positive
from cyclestyle.tasks.pseudo_reals import PseudoReals
from cyclestyle.weights.efficientnet import load_efficientnet


class Adversary:
    """Losses of generators and discriminators, the same for every GAN task.

    With the defaults of the options, they are the plain losses of the mode. Where several discriminators judge a
    domain together, their losses are added, each with the weight 1, as in joliGEN. Projected discriminators always
    have the hinge loss, and always see `translation` and a `cutout` of a fifth of the side, besides the policy.

    Args:
        gan_mode: `lsgan`, `vanilla`, `hinge` or `wgangp`.
        diff_augment: names of `diff_augment`, which changes everything that a discriminator sees.
        pseudo_reals: what replaces real images by generated ones, if anything does.
        r1_gamma: weight γ of `r1_penalty`, with the mean of the scores.
        lambda_GP: weight λ of `zero_centred_penalty`.
        label_smoothing: what the target of real images is below 1, for discriminators alone.

    Raises:
        ValueError: a value is unknown or out of its range, or does not go with the mode.
    """

    def __init__(
        self,
        gan_mode: GanMode,
        *,
        diff_augment: Sequence[AugmentationName] = (),
        pseudo_reals: PseudoReals | None = None,
        r1_gamma: float = 0.0,
        lambda_GP: float = 0.0,
        label_smoothing: float = 0.0,
    ) -> None:
        check_gan_mode(gan_mode)
        check_augmentations(diff_augment)
        check_not_negative(r1_gamma=r1_gamma, lambda_GP=lambda_GP)
        if not 0 <= label_smoothing < 0.5:
            raise ValueError(f"label_smoothing must be in [0, 0.5), got {label_smoothing}")
        if label_smoothing and gan_mode not in ("lsgan", "vanilla"):
            raise ValueError(f"label_smoothing needs gan_mode lsgan or vanilla, which have targets, got {gan_mode}")
        if gan_mode == "wgangp" and (pseudo_reals or lambda_GP):
            name = "apa" if pseudo_reals else "lambda_GP"
            raise ValueError(f"{name} does not go with gan_mode wgangp; leave it out, or choose another gan_mode")
        self.gan_mode = gan_mode
        self.policy = tuple(diff_augment)
        self.pseudo_reals = pseudo_reals
        self.r1_gamma, self.lambda_GP = r1_gamma, lambda_GP
        self.real_target = 1.0 - label_smoothing

    def generator_loss(self, discriminator: nn.Module, fake: Tensor) -> Tensor:
        """Return the loss of the generator that made `fake`, `(N, C, H, W)`; it moves no discriminator."""
        with frozen(discriminator):
            return _sum(generator_loss(one(self._shown(one, fake)), self._mode(one)) for one in members(discriminator))

    def discriminator_loss(self, discriminator: nn.Module, real: Tensor, fake: Tensor, name: str = "D") -> Tensor:
        """Return the loss of a discriminator, halved, on real images and detached fakes, `(N, C, H, W)` each.

        Penalties are not halved, but for that of `wgangp`. They see the images as the discriminator does. Without
        gradients, as in validation, there are neither penalties nor pseudo reals.

        Args:
            discriminator: the network, or a `ModuleList` of those that judge the domain together.
            real: real images.
            fake: generated images, detached.
            name: of the discriminator, for what is remembered of it.

        Raises:
            DataError: an option mixes real with generated images, and their sizes differ.
        """
        training = torch.is_grad_enabled()
        if self.pseudo_reals is not None and training:
            real = self.pseudo_reals.mixed(name, real, fake)
        losses, signs = [], []
        for one in members(discriminator):
            mode, shown_real, shown_fake = self._mode(one), self._shown(one, real), self._shown(one, fake)
            scores_real, scores_fake = call_on_both(one, shown_real, shown_fake)
            losses.append(discriminator_loss(scores_real, scores_fake, mode, real_target=self.real_target))
            if training:
                losses.extend(self._penalties(one, shown_real, shown_fake))
            if self.pseudo_reals is not None and training:
                signs.append(judged_real(scores_real, mode).float().flatten() * 2 - 1)
        if self.pseudo_reals is not None and training:
            self.pseudo_reals.observe(name, torch.cat(signs), len(real))
        return _sum(losses)

    def _mode(self, discriminator: nn.Module) -> GanMode:
        return discriminator.gan_mode if isinstance(discriminator, ProjectedDiscriminator) else self.gan_mode

    def _shown(self, discriminator: nn.Module, images: Tensor) -> Tensor:
        """Return images as a discriminator sees them."""
        if isinstance(discriminator, ProjectedDiscriminator):
            policy = {*self.policy, *discriminator.augmentations}
            return diff_augment(images, policy, cutout=discriminator.cutout)
        return diff_augment(images, self.policy)

    def _penalties(self, discriminator: nn.Module, real: Tensor, fake: Tensor) -> Iterator[Tensor]:
        """Yield the penalties, each with its weight."""
        # Penalties call `forward` and not the module, because compiled calls have no second derivative
        if self._mode(discriminator) == "wgangp":  # the loss of Gulrajani et al. 2017, eq. 3, halved like the others
            alpha = torch.rand(len(real), device=real.device)
            yield 0.5 * gradient_penalty(discriminator.forward, real, fake, alpha)
        if self.r1_gamma > 0:  # Mescheder et al. 2018, eq. 9
            yield self.r1_gamma * r1_penalty(discriminator.forward, real)
        if self.lambda_GP > 0:  # UVCGAN v2
            alpha = torch.rand(1, device=real.device)
            yield self.lambda_GP * zero_centred_penalty(discriminator.forward, real, fake, alpha)

    def judged_real(self, discriminator: nn.Module, images: Tensor) -> Tensor | None:
        """Return which share of the scores of each image says *real*, `(N,)`; None for `wgangp`.

        That of several discriminators is the mean of theirs.
        """
        if self.gan_mode == "wgangp":
            return None
        shares = [
            judged_real(one(images), self._mode(one)).float().flatten(1).mean(1) for one in members(discriminator)
        ]
        return torch.stack(shares).mean(dim=0)


def _sum(losses: Iterable[Tensor]) -> Tensor:
    return torch.stack(list(losses)).sum()


class AdversarialTask(Task):
    """A `Task` with discriminators, and with the options that help them on small sets, all of them off by default.

    Args:
        gan_mode: `lsgan`, `vanilla`, `hinge` or `wgangp`.
        diff_augment: what a discriminator sees is changed at random by these: `color`, `translation`, `cutout`
            (DiffAugment, Zhao et al. 2020); null for none.
        apa: show a discriminator that overfits generated images as real ones (APA, Jiang et al. 2021).
        apa_target: for `apa`: mean sign of the scores of real images above which a discriminator overfits.
        apa_images: for `apa`: images over which the share of these images may rise from 0 to 1.
        r1_gamma: weight γ of the R1 penalty γ/2 · E‖∇D‖² on real images (Mescheder et al. 2018); 0 for none. D is the
            mean of an image's scores.
        lambda_GP: weight λ of the zero-centred penalty λ · E‖∇D‖² on mixtures of real and generated images (UVCGAN
            v2); 0 for none. D is the mean of an image's scores.
        spectral_norm: divide the weights of the discriminators by their largest singular value (Miyato et al. 2018).
        label_smoothing: discriminators want 1 less this for real images (Salimans et al. 2016); 0.1 is usual.
        discriminator_lr_factor: the learning rate of the discriminators, relative to `lr`.
        projected_size: for the discriminator `projected`: images whose shorter side is smaller are enlarged to it; at
            least 128.
        projected_weights: for the discriminator `projected`: a file of EfficientNet-Lite0, or `random`; null for the
            weights that timm downloads.
        lr: Adam's learning rate.
        betas: Adam's betas.
        schedule: the options of the learning rate that every `Task` has.

    Raises:
        ValueError: a value is unknown or out of its range, or does not go with the mode.
    """

    in_bfloat16 = ("training", "translating")

    def __init__(
        self,
        *,
        gan_mode: GanMode = "lsgan",
        diff_augment: list[AugmentationName] | None = None,
        apa: bool = False,
        apa_target: float = 0.6,
        apa_images: int = 500_000,
        r1_gamma: float = 0.0,
        lambda_GP: float = 0.0,
        spectral_norm: bool = False,
        label_smoothing: float = 0.0,
        discriminator_lr_factor: float = 1.0,
        projected_size: int = 224,
        projected_weights: str | None = None,
        lr: float = 2e-4,
        betas: tuple[float, float] = (0.5, 0.999),
        **schedule: Any,
    ) -> None:
        super().__init__(**schedule)
        check_positive(lr=lr, discriminator_lr_factor=discriminator_lr_factor)
        self.lr, self.betas = lr, betas
        self.lr_factors = {"discriminators": discriminator_lr_factor}
        self.projected_size, self.projected_weights = projected_size, projected_weights
        pseudo_reals = PseudoReals(tuple(self.discriminators), target=apa_target, images=apa_images)
        self.pseudo_reals = pseudo_reals if apa else None  # `Task` finds it here
        self.adversary = Adversary(
            gan_mode,
            diff_augment=diff_augment or (),
            pseudo_reals=self.pseudo_reals,
            r1_gamma=r1_gamma,
            lambda_GP=lambda_GP,
            label_smoothing=label_smoothing,
        )
        self.spectral_norm = spectral_norm

    def setup(self, stage: str) -> None:
        """Give the projected discriminators, if there are any, their frozen features; translating needs none.

        Raises:
            CycleStyleError: timm is not installed.
            CheckpointError: the weights are missing or of another network.
        """
        super().setup(stage)
        projected = [module for module in self.modules() if isinstance(module, ProjectedDiscriminator)]
        if stage in ("fit", "validate") and any(not one.features for one in projected):
            features = load_efficientnet(self.projected_weights).to(memory_format=self.speed.memory_format)
            for one in projected:
                one.features = (features,)

    def _images(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the images of both domains in the memory format of the networks."""
        A, B = (batch[domain].contiguous(memory_format=self.speed.memory_format) for domain in ("A", "B"))
        return A, B

    def judged_real(self, discriminator: str, images: Tensor) -> Tensor | None:
        """Return which share of each image's scores says *real*, `(N,)` in [0, 1]; None with `wgangp`."""
        return self.adversary.judged_real(self.get_submodule(discriminator), images)

    def normalise_discriminators(self) -> None:
        """Add spectral norm to the discriminators if the setting asks for it; call it after their initialisation."""
        if self.spectral_norm:
            for name in self.discriminators:
                add_spectral_norm(self.get_submodule(name))
