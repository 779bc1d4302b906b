"""Says in words, and early, when a run goes wrong."""

import statistics
import sys
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from cyclestyle.callbacks.evaluation import DIRECTIONS
from cyclestyle.images import as_rgb
from cyclestyle.metrics.health import diversity, duplicate_share, luminance_correlation, thumbnails
from cyclestyle.tasks import CycleGAN

WINDOW = 100  # steps between two looks at losses and gradients
IDENTITY = 0.02  # mean absolute change, in [0, 2], below which a translation is its input
COLLAPSE = 0.2  # diversity of fakes relative to the target domain's
INVERSION = -0.3  # correlation of light and dark
SATURATED = 0.01  # mean loss of a discriminator that tells everything apart
EXPLODED, VANISHED = 1e3, 1e-8  # gradient norm, relative to its median so far, and absolute
DUPLICATES = 0.5  # share of a domain's images that repeat an earlier one
LOOKED_AT = 200  # images of a domain that are compared for duplicates


class Alarms(pl.Callback):
    """Warns once of each: on standard error, in `<run>/alarms.txt`, and as an alert of loggers that know alerts.

    | alarm | when |
    |---|---|
    | identity | a generator returns its input |
    | collapse | translations of different images look the same: the input is ignored |
    | inversion | light and dark are exchanged |
    | saturation | a discriminator tells every image apart, and the generator learns nothing from it |
    | gradients | a player's gradients explode or vanish |
    | duplicates | a domain's images are mostly copies of each other |

    Other tasks than CycleGAN, which have no players, are watched for their gradients.

    Args:
        after_steps: steps before the first look at translations and losses, which say little at first.
        enabled: whether to look at all.
    """

    def __init__(self, after_steps: int = 500, enabled: bool = True) -> None:
        self.after_steps = after_steps
        self.enabled = enabled
        self.raised: dict[str, str] = {}
        self._losses: list[dict[str, Tensor]] = []
        self._norms: dict[str, list[float]] = {}
        self._thumbs: dict[str, list[Tensor]] = {}
        self._changes: dict[str, list[Tensor]] = {}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Look for duplicates among the training images."""
        if not self.enabled or not trainer.is_global_zero or not hasattr(trainer, "datamodule"):
            return
        for domain in "AB":
            if not isinstance(pl_module, CycleGAN) or not hasattr(trainer.datamodule, "domain_images"):
                return
            images = trainer.datamodule.domain_images(f"train_{domain}", LOOKED_AT)
            share = duplicate_share(torch.cat([thumbnails(as_rgb(batch)) for batch in images]))
            if share > DUPLICATES:
                self._raise(
                    trainer,
                    f"duplicates {domain}",
                    f"{share:.0%} of domain {domain}'s images are nearly copies of others; "
                    "the discriminator will learn them by heart",
                )

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Look at the discriminators' losses of the last steps, all at once."""
        if not self.enabled or trainer.global_step < self.after_steps or not isinstance(pl_module, CycleGAN):
            return
        self._losses.append({name: outputs["losses"][name] for name in ("D_A", "D_B")})
        if len(self._losses) < WINDOW:
            return
        losses, self._losses = self._losses, []
        for name, domain in (("D_A", "B"), ("D_B", "A")):
            mean = torch.stack([loss[name] for loss in losses]).mean().item()
            if mean < SATURATED:
                self._raise(
                    trainer,
                    f"saturation {domain}",
                    f"the discriminator of domain {domain} tells every image apart (mean loss {mean:.2g} over "
                    f"{WINDOW} steps); the generator learns nothing from it. Lower its width (model.ndf), give it more "
                    "images, or raise model.pool_size",
                )

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """Look at each player's gradients now and then."""
        if not self.enabled or trainer.global_step % WINDOW:
            return
        for group in optimizer.param_groups:
            gradients = [p.grad.norm() for p in group["params"] if p.grad is not None]
            norm = torch.stack(gradients).norm().item() if gradients else 0.0
            norms = self._norms.setdefault(group["name"], [])
            if norm < VANISHED:
                text = f"the {group['name']}' gradients vanish (norm {norm:.2g}); they learn nothing"
                self._raise(trainer, f"gradients of {group['name']}", text)
            elif norms and norm > EXPLODED * statistics.median(norms):
                text = (
                    f"the {group['name']}' gradients explode (norm {norm:.2g}, {statistics.median(norms):.2g} usually)"
                )
                self._raise(trainer, f"gradients of {group['name']}", f"{text}; set trainer.gradient_clip_val")
            norms.append(norm)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin anew."""
        self._thumbs, self._changes = {}, {}

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep small versions of the images."""
        if not self.enabled or trainer.sanity_checking or trainer.global_step < self.after_steps:
            return
        if not isinstance(pl_module, CycleGAN):
            return
        shown = {name: as_rgb(outputs[name].float()) for name in ("real_A", "real_B", "fake_A", "fake_B")}
        for name, images in shown.items():
            self._thumbs.setdefault(name, []).append(thumbnails(images))
        for direction, (source, target) in DIRECTIONS.items():
            change = (shown[f"fake_{target}"] - shown[f"real_{source}"]).abs().mean()
            self._changes.setdefault(direction, []).append(change)

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Look at the translations."""
        if not self._thumbs:
            return
        thumbs = {name: torch.cat(batches) for name, batches in self._thumbs.items()}
        for direction, (source, target) in DIRECTIONS.items():
            reals, fakes = thumbs[f"real_{source}"], thumbs[f"fake_{target}"]
            change = torch.stack(self._changes[direction]).mean().item()
            if change < IDENTITY:
                text = f"the generator {direction} returns its input (mean change {change:.2g})"
                self._raise(
                    trainer, f"identity {direction}", f"{text}; lower model.lambda_identity or the cycle weights"
                )
            spread, usual = diversity(fakes), diversity(thumbs[f"real_{target}"])
            if len(fakes) > 1 and spread < COLLAPSE * usual:
                self._raise(
                    trainer,
                    f"collapse {direction}",
                    f"the generator {direction} ignores its input: its images are {spread / usual:.0%} as diverse as "
                    f"domain {target}'s; raise the cycle weights, or start anew with another seed",
                )
            tone = luminance_correlation(reals, fakes).mean().item()
            if tone < INVERSION:
                text = f"the generator {direction} exchanges light and dark (correlation {tone:.2f})"
                self._raise(
                    trainer, f"inversion {direction}", f"{text}; raise model.lambda_identity, or use another seed"
                )

    def _raise(self, trainer: pl.Trainer, kind: str, text: str) -> None:
        if kind in self.raised:
            return
        self.raised[kind] = text
        if not trainer.is_global_zero:
            return
        line = f"step {trainer.global_step}: {text}"
        print(f"\ncyclestyle: alarm: {line}", file=sys.stderr)
        with (Path(trainer.default_root_dir) / "alarms.txt").open("a") as file:
            file.write(line + "\n")
        for logger in trainer.loggers:
            alert = getattr(logger.experiment, "alert", None)  # type: ignore[attr-defined]  # W&B has it
            if alert is not None:
                alert(title=kind, text=line)
