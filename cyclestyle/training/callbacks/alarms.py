"""Warnings about common failures of training."""

import math
import statistics
import sys
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from cyclestyle.data.datamodule import domains_of
from cyclestyle.images import as_rgb
from cyclestyle.metrics.checkerboard import checkerboard_spectrum
from cyclestyle.metrics.health import diversity, duplicate_share, luminance_correlation, thumbnails
from cyclestyle.networks.method import DOMAINS
from cyclestyle.tasks.base import as_task

WINDOW = 100  # steps between two checks of losses and gradients
IDENTITY = 0.02  # mean absolute change, in [0, 2], below which a generator counts as the identity
COLLAPSE = 0.2  # diversity of translations relative to that of the target domain
CHECKERBOARD = 0.4  # of translations at the worst frequency, above the target domain's images
INVERSION = -0.3  # luminance correlation below which light and dark count as inverted
OVERFITTED = 0.25  # share of real images judged real: that of training images, less that of held-out ones
SATURATED = 0.01  # mean loss below which a discriminator counts as perfect
EXPLODED, VANISHED = 1e3, 1e-8  # gradient norm: relative to its median so far, and absolute
DUPLICATES = 0.5  # share of the images of a domain that are duplicates
MAX_COMPARED = 200  # maximum number of images per domain that are checked for duplicates


class Alarms(pl.Callback):
    """Warns once about each problem: on standard error, in `<run>/alarms.txt`, and as an alert of W&B.

    | alarm | when |
    |---|---|
    | identity | a generator returns its input |
    | collapse | translations of different images are nearly the same |
    | inversion | light and dark are inverted |
    | checkerboard | translations show a regular pattern of 2 or 4 pixels |
    | saturation | a discriminator separates real and fake images perfectly and gives no useful gradient |
    | overfitting | a discriminator overfits its training images, and takes held-out ones for fakes |
    | gradients | the gradients of a parameter group explode or vanish |
    | duplicates | most images of a domain are copies of each other |
    | rate | the learning rate is 0, after the end of the schedule |

    Translations are checked in the directions of the task, losses of its discriminators, and gradients of every task.

    Args:
        after_steps: number of steps before the first check of translations and losses.
        enabled: whether to run the checks.
    """

    def __init__(self, after_steps: int = 500, enabled: bool = True) -> None:
        self.after_steps = after_steps
        self.enabled = enabled
        self.raised: dict[str, str] = {}
        self._losses: list[dict[str, Tensor]] = []
        self._norms: dict[str, list[float]] = {}
        self._thumbnails: dict[str, list[Tensor]] = {}
        self._changes: dict[str, list[Tensor]] = {}
        self._patterns: dict[str, list[Tensor]] = {}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Check the training images for duplicates."""
        data = domains_of(trainer)
        if not self.enabled or not trainer.is_global_zero or data is None:
            return
        for domain in sorted({domain for direction in as_task(pl_module).directions for domain in DOMAINS[direction]}):
            images = data.domain_images(f"train_{domain}", MAX_COMPARED)
            share = duplicate_share(torch.cat([thumbnails(as_rgb(batch)) for batch in images]))
            if share > DUPLICATES:
                self._raise(
                    trainer,
                    f"duplicates {domain}",
                    f"{share:.0%} of domain {domain}'s images are nearly copies of others; "
                    "the method will memorise them",
                )

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Check the learning rate, which a run that is limited by its steps or its time may outlive."""
        if self.enabled and as_task(pl_module).learning_rate_factor(trainer.current_epoch) == 0:
            text = f"the learning rate is 0 from epoch {trainer.current_epoch + 1} on, and nothing is learnt any more"
            self._raise(trainer, "rate", f"{text}; raise model.constant_epochs or model.decay_epochs")

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Check the mean discriminator losses of the last `WINDOW` steps, with one synchronisation of the device."""
        discriminators = as_task(pl_module).discriminators
        if not self.enabled or trainer.global_step < self.after_steps or not discriminators:
            return
        self._losses.append({name: outputs["losses"][name] for name in discriminators})
        if len(self._losses) < WINDOW:
            return
        losses, self._losses = self._losses, []
        for name, domain in discriminators.items():
            mean = torch.stack([loss[name] for loss in losses]).mean().item()
            if 0 <= mean < SATURATED:  # losses of a Wasserstein critic are negative and have no bound
                self._raise(
                    trainer,
                    f"saturation {domain}",
                    f"the discriminator of domain {domain} separates real from fake perfectly (mean loss {mean:.2g} "
                    f"over {WINDOW} steps); the generator learns nothing from it. Lower its width (model.ndf), add "
                    "images, or raise model.pool_size",
                )

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """Check the gradient norm of each parameter group every `WINDOW` steps."""
        if not self.enabled or trainer.global_step % WINDOW:
            return
        for group in optimizer.param_groups:
            gradients = [p.grad.norm() for p in group["params"] if p.grad is not None]
            if not gradients:
                continue  # another parameter group is updated in this step
            norm = torch.stack(gradients).norm().item()
            earlier = self._norms.setdefault(group["name"], [])
            if norm < VANISHED:
                text = f"the gradients of the {group['name']} vanish (norm {norm:.2g}); they learn nothing"
                self._raise(trainer, f"gradients of {group['name']}", text)
            elif earlier and norm > EXPLODED * statistics.median(earlier):
                usual = f"{statistics.median(earlier):.2g} usually"
                text = f"the gradients of the {group['name']} explode (norm {norm:.2g}, {usual})"
                self._raise(trainer, f"gradients of {group['name']}", f"{text}; set trainer.gradient_clip_val")
            earlier.append(norm)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Reset the statistics of the images."""
        self._thumbnails, self._changes, self._patterns = {}, {}, {}

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Store thumbnails of the images, and the mean changes and patterns of the translations."""
        if not self.enabled or trainer.sanity_checking or trainer.global_step < self.after_steps:
            return
        images = {name: as_rgb(image.float()) for name, image in outputs.items()}
        for direction in as_task(pl_module).directions:
            source, target = DOMAINS[direction]
            real, fake = images[f"real_{source}"], images[f"fake_{target}"]
            example = as_rgb(batch[target].float())
            self._thumbnails.setdefault(f"{direction} real", []).append(thumbnails(real))
            self._thumbnails.setdefault(f"{direction} fake", []).append(thumbnails(fake))
            self._thumbnails.setdefault(f"{direction} target", []).append(thumbnails(example))
            self._changes.setdefault(direction, []).append((fake - real).abs().mean())
            patterns = checkerboard_spectrum(fake).mean(dim=0) - checkerboard_spectrum(example).mean(dim=0)
            self._patterns.setdefault(direction, []).append(patterns)

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Check the translations."""
        for direction in self._changes:
            self._check_content(trainer, direction)
            self._check_patterns(trainer, pl_module, direction)

    def _check_content(self, trainer: pl.Trainer, direction: str) -> None:
        target = direction[-1]
        reals, fakes, targets = (torch.cat(self._thumbnails[f"{direction} {of}"]) for of in ("real", "fake", "target"))
        change = torch.stack(self._changes[direction]).mean().item()
        if change < IDENTITY:
            text = f"the translation {direction} returns its input (mean change {change:.2g})"
            self._raise(trainer, f"identity {direction}", f"{text}; lower the identity or cycle weights")
        fake_diversity, target_diversity = diversity(fakes), diversity(targets)
        if len(fakes) > 1 and fake_diversity < COLLAPSE * target_diversity:
            ratio = fake_diversity / target_diversity
            self._raise(
                trainer,
                f"collapse {direction}",
                f"the translation {direction} ignores its input: its images are {ratio:.0%} as diverse as "
                f"those of domain {target}; raise the cycle weights, or start again with another seed",
            )
        correlation = luminance_correlation(reals, fakes).mean().item()
        if correlation < INVERSION:
            text = f"the translation {direction} swaps light and dark (correlation {correlation:.2f})"
            self._raise(trainer, f"inversion {direction}", f"{text}; raise the identity weight, or use another seed")

    def _check_patterns(self, trainer: pl.Trainer, pl_module: pl.LightningModule, direction: str) -> None:
        excess = torch.stack(self._patterns[direction]).nanmean(dim=0).max().item()  # NaN of small images; no alarm
        if excess <= CHECKERBOARD or math.isnan(excess):
            return
        text = f"the translation {direction} has a checkerboard ({excess:.2f} above the images of {direction[-1]})"
        remedy = "translate with --model.comb_filter true, which removes it"
        if pl_module.hparams.get("comb_filter"):
            remedy = "train longer, or anew with --model.resample blur (resnet generators)"
        self._raise(trainer, f"checkerboard {direction}", f"{text}; {remedy}")

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Check what the discriminators say of held-out images, which `DiscriminatorAccuracy` has logged."""
        if not self.enabled or trainer.sanity_checking or trainer.global_step < self.after_steps:
            return
        figures = trainer.callback_metrics
        for name, domain in as_task(pl_module).discriminators.items():
            if f"val/{name}_real_train" not in figures:
                continue
            held_out, trained = (figures[f"val/{name}_real{suffix}"].item() for suffix in ("", "_train"))
            if trained - held_out > OVERFITTED:
                self._raise(
                    trainer,
                    f"overfitting {domain}",
                    f"the discriminator of domain {domain} overfits its training images: it takes {trained:.0%} "
                    f"of them for real, but {held_out:.0%} of held-out ones. Add images, or train anew with "
                    "--model.diff_augment '[color, translation, cutout]'",
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
            alert = getattr(logger.experiment, "alert", None)  # type: ignore[attr-defined]  # only W&B has alerts
            if alert is not None:
                alert(title=kind, text=line)
