"""What a GAN task knows of its two domains beside their images: ranges, masks and pairs."""

from abc import abstractmethod
from typing import Any

import torch.nn.functional as F
from pytorch_lightning.utilities import rank_zero_warn
from torch import Tensor, nn

from cyclestyle.data.datamodule import domains_of
from cyclestyle.errors import CycleStyleError
from cyclestyle.networks.method import DOMAINS, Direction, stored_ranges
from cyclestyle.tasks.adversary import AdversarialTask
from cyclestyle.tasks.base import Batch
from cyclestyle.tasks.checks import check_not_negative


class DomainTask(AdversarialTask):
    """An `AdversarialTask` on two domains, which the datamodule may say more about.

    | logged name | what it is |
    |---|---|
    | `train/outside_AB` | λ_outside · mean abs((G_AB(A) − A) (1 − mask of A)) |
    | `train/pairs_AB` | λ_pairs · mean abs(G_AB(A) − B) of images that show the same |

    Args:
        lambda_outside: weight of the difference of translations from their images outside of the masks in
            `data.masks_A` and `data.masks_B`; 10 in joliGEN.
        judge_inside: let the discriminators see images inside of their masks alone, and 0 outside.
        lambda_pairs: weight of the difference of translations from their counterparts in `data.pairs`.
        ranges: the lowest and the highest value of the domains `A` and `B` where these are no colours; null: those that
            the datamodule finds, which checkpoints store.
        options: those of every `AdversarialTask`, such as `diff_augment`, and of every `Task`, such as `lr_policy`.

    Raises:
        ValueError: a weight is below 0.
    """

    channels: dict[str, int]
    filled_in = ("ranges",)

    def __init__(
        self,
        *,
        lambda_outside: float = 0.0,
        judge_inside: bool = False,
        lambda_pairs: float = 0.0,
        ranges: dict[str, list[float]] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        check_not_negative(lambda_outside=lambda_outside, lambda_pairs=lambda_pairs)
        self.lambda_outside, self.judge_inside, self.lambda_pairs = lambda_outside, judge_inside, lambda_pairs
        self.ranges = stored_ranges(ranges)

    @abstractmethod
    def generator(self, direction: Direction) -> nn.Module:
        """Return the generator of a direction."""

    def inside(self, batch: Batch, domain: str, images: Tensor, *, mirrored: bool = False) -> Tensor:
        """Return images as discriminators see them: with `judge_inside`, 0 outside of the masks.

        Args:
            batch: the batch, with the masks.
            domain: of the masks: that of the images, or the one that they were translated from.
            images: `(N, C, H, W)`.
            mirrored: whether the images are mirrored.
        """
        if not self.judge_inside or f"mask_{domain}" not in batch:
            return images
        mask: Tensor = batch[f"mask_{domain}"]
        return images * (mask.flip(-1) if mirrored else mask).to(images)

    def domain_losses(self, batch: Batch, **fakes: Tensor) -> dict[str, Tensor]:
        """Return the losses of masks and pairs, weighted; none where they are off.

        Args:
            batch: the batch.
            fakes: the translations of its images, not mirrored, by their directions.
        """
        losses = {}
        for direction in self.directions:
            source, target = DOMAINS[direction]
            mask = batch.get(f"mask_{source}")
            if self.lambda_outside > 0 and mask is not None:
                change = (fakes[direction] - batch[source]) * (1 - mask)
                losses[f"outside_{source}{target}"] = self.lambda_outside * change.abs().mean()
            if self.lambda_pairs > 0 and "pair_A" in batch:
                translated = self.generator(direction)(batch[f"pair_{source}"])
                losses[f"pairs_{source}{target}"] = self.lambda_pairs * F.l1_loss(translated, batch[f"pair_{target}"])
        return losses

    def on_fit_start(self) -> None:
        """Check that the data has what the options are about.

        Raises:
            CycleStyleError: it has no masks or no pairs, or the domains of masks have different channels.
        """
        super().on_fit_start()
        data = domains_of(self.trainer)
        masks = {} if data is None else data.masks
        sources = {DOMAINS[direction][0] for direction in self.directions}
        if masks and not self.lambda_outside and not self.judge_inside:
            rank_zero_warn("masks change nothing without model.lambda_outside or model.judge_inside")
        if self.lambda_outside > 0 and not sources & set(masks):
            raise CycleStyleError(
                "model.lambda_outside needs masks; name their folder with data.masks_A or data.masks_B"
            )
        if self.lambda_outside > 0 and len(set(self.channels.values())) > 1:
            raise CycleStyleError("model.lambda_outside needs the same channels in both domains; set it to 0")
        if self.judge_inside and set(masks) != {"A", "B"}:
            raise CycleStyleError("model.judge_inside needs the masks of both domains, data.masks_A and data.masks_B")
        if self.lambda_pairs > 0 and not (data and data.training_pairs):
            raise CycleStyleError("model.lambda_pairs needs pairs of training images; name them with data.pairs")

    def on_train_start(self) -> None:
        """Store the ranges of the domains, with which translations are made, among the constructor arguments."""
        super().on_train_start()
        data = domains_of(self.trainer)
        if data is not None:
            self.hparams["ranges"], self.ranges = data.ranges or None, stored_ranges(data.ranges)
