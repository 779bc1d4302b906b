"""How good the translations of the test split are: measured at every validation, and by `test`."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytorch_lightning as pl
import torch
from torch import Tensor
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

from cyclestyle.callbacks.ema import EMAGenerators
from cyclestyle.files import atomic_write
from cyclestyle.images import as_rgb
from cyclestyle.metrics import ExtractorName, build_extractor, content_distance, set_distance, structure_distance
from cyclestyle.tasks import Autoencoder, CycleGAN

DIRECTIONS = {"AtoB": ("A", "B"), "BtoA": ("B", "A")}
T = TypeVar("T")
LOGGED = ("kid", "kid_std", "fid", "content", "structure", "cycle_psnr", "cycle_ssim")


@dataclass
class Judged:
    """What is kept of one translated image, on the CPU."""

    embedding: Tensor
    content: float
    structure: float
    cycle_psnr: float
    cycle_ssim: float


class Evaluation(pl.Callback):
    """Measures both directions on the test split, for the raw and, if there are any, the averaged generators.

    Logs `val/kid_AtoB`, `val/fid_AtoB`, `val/content_AtoB`, `val/structure_AtoB`, `val/cycle_psnr_AtoB`,
    `val/cycle_ssim_AtoB`, the same for `BtoA`, and `val/kid`, the mean of both directions, which `best.ckpt`
    goes by; for averaged generators under `val_ema/`. The lower, the closer, but for PSNR and SSIM. KID and FID
    compare the translations of the test split with the target domain's training images; the extractor and
    the counts stand beside each figure in `<run>/evaluation.jsonl`. Each image counts once, however often a
    loader repeats it. Tasks that translate in one direction only are not measured.

    Args:
        extractor: `statistics` (needs no file), `squeezenet`, `vgg`, `inception`, or `none` for no evaluation.
        weights: a file for the extractor.
        max_reals: training images of each domain to compare with.
    """

    def __init__(
        self, extractor: ExtractorName | str = "statistics", weights: str | None = None, max_reals: int = 500
    ) -> None:
        if max_reals < 2:
            raise ValueError(f"max_reals must be at least 2, got {max_reals}")
        self.extractor = None if extractor == "none" else build_extractor(extractor, weights)  # type: ignore[arg-type]
        self.max_reals = max_reals
        self.table: dict[str, dict[str, Any]] = {}
        self.shown: dict[str, dict[str, Tensor]] = {}  # of the latest batch, by variant
        self._judged: dict[str, dict[str, dict[str, Judged]]] = {}  # variant, direction, path
        self._reals: dict[str, Tensor] = {}

    # The test split goes by

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin anew."""
        self._judged = {}

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin anew."""
        self._judged = {}

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Judge the images of a batch."""
        if self.extractor is None or trainer.sanity_checking or not has_directions(pl_module):
            return
        self.shown = {"raw": outputs}
        ema = ema_of(trainer)
        if ema is not None:
            with ema.in_place(pl_module):
                self.shown["ema"] = pl_module.sample(batch)  # type: ignore[operator]  # the task's method
        for variant, shown in self.shown.items():
            self._judge(variant, shown, batch)

    def on_test_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Judge the images of a batch."""
        self.on_validation_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def _judge(self, variant: str, shown: dict[str, Tensor], batch: dict[str, Any]) -> None:
        assert self.extractor is not None
        for direction, (source, target) in DIRECTIONS.items():
            judged = self._judged.setdefault(variant, {}).setdefault(direction, {})
            paths = batch.get(f"paths_{source}") or [str(len(judged) + n) for n in range(len(batch[source]))]
            if judged.keys() >= set(paths):
                continue  # the smaller domain, once more
            real, fake, rec = (
                as_rgb(shown[name].float()) for name in (f"real_{source}", f"fake_{target}", f"rec_{source}")
            )
            extractor = self.extractor.to(real.device)
            embeddings = extractor(fake).cpu()
            content = content_distance(extractor, real, fake)
            structure = structure_distance(extractor, real, fake)
            for n, path in enumerate(paths):
                psnr = peak_signal_noise_ratio(rec[n], real[n], data_range=2.0)
                ssim = structural_similarity_index_measure(rec[n : n + 1], real[n : n + 1], data_range=2.0)
                assert isinstance(ssim, Tensor)
                judged[path] = Judged(embeddings[n], content[n].item(), structure[n].item(), psnr.item(), ssim.item())

    # and is summed up

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log the figures, so that checkpoints and early stopping can go by them."""
        self._sum_up(trainer, pl_module, "val")

    def on_test_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log the figures."""
        self._sum_up(trainer, pl_module, "test")

    def _sum_up(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if self.extractor is None or trainer.sanity_checking or not has_directions(pl_module):
            return
        self.table = {}
        for variant, directions in self._judged.items():
            prefix = stage if variant == "raw" else f"{stage}_{variant}"
            for direction, (_, target) in DIRECTIONS.items():
                judged = gathered(directions[direction], trainer)
                row = self._row(judged, self._embeddings_of_reals(trainer, pl_module, target))
                self.table[f"{variant} {direction}"] = row
                for name in LOGGED:
                    pl_module.log(f"{prefix}/{name}_{direction}", row[name], batch_size=1)
            kids = [self.table[f"{variant} {direction}"]["kid"] for direction in DIRECTIONS]
            pl_module.log(f"{prefix}/kid", sum(kids) / len(kids), batch_size=1)
        if trainer.is_global_zero and stage == "val":
            file = Path(trainer.default_root_dir) / "evaluation.jsonl"
            append_step(file, {"step": trainer.global_step, "epoch": trainer.current_epoch, **self.table})

    def _row(self, judged: dict[str, Judged], reals: Tensor) -> dict[str, Any]:
        assert self.extractor is not None
        each = [judged[path] for path in sorted(judged)]
        fakes = torch.stack([one.embedding for one in each])
        row: dict[str, Any] = {
            name: sum(getattr(one, name) for one in each) / len(each)
            for name in ("content", "structure", "cycle_psnr", "cycle_ssim")
        }
        if min(len(reals), len(fakes)) >= 2:
            row |= set_distance(reals, fakes, self.extractor.name)._asdict()
        else:
            row |= {"kid": math.nan, "kid_std": math.nan, "fid": math.nan, "extractor": self.extractor.name}
        return row

    def _embeddings_of_reals(self, trainer: pl.Trainer, pl_module: pl.LightningModule, domain: str) -> Tensor:
        """The training images of a domain, embedded once a run."""
        if domain not in self._reals:
            assert self.extractor is not None
            loader = trainer.datamodule.domain_images(f"train_{domain}", self.max_reals)  # type: ignore[attr-defined]
            with torch.no_grad():
                batches = [self.extractor(as_rgb(batch.to(pl_module.device))).cpu() for batch in loader]
            self._reals[domain] = torch.cat(batches)
        return self._reals[domain]

    @property
    def judged(self) -> dict[str, dict[str, dict[str, Judged]]]:
        """What was found of each image: by variant (`raw`, `ema`), direction and path."""
        return self._judged


def has_directions(pl_module: pl.LightningModule) -> bool:
    """Whether the task translates A to B and B to A, and has batches of both."""
    return isinstance(pl_module, CycleGAN | Autoencoder)


def ema_of(trainer: pl.Trainer) -> EMAGenerators | None:
    """The callback that holds averaged generators, if there are any."""
    found = [callback for callback in trainer.callbacks if isinstance(callback, EMAGenerators)]  # type: ignore[attr-defined]
    return found[0] if found and found[0].weights else None


def gathered(judged: dict[str, T], trainer: pl.Trainer) -> dict[str, T]:
    """What is known of the images of all processes, by path."""
    if trainer.world_size == 1:
        return judged
    everyone: list[Any] = [None] * trainer.world_size
    torch.distributed.all_gather_object(everyone, judged)
    return {path: one for part in everyone for path, one in part.items()}


def append_step(file: Path, row: dict[str, Any]) -> None:
    """Add a line; those of later steps are of a run that was resumed from before, and are dropped."""
    lines = file.read_text().splitlines() if file.exists() else []
    kept = [line for line in lines if json.loads(line)["step"] < row["step"]]
    with atomic_write(file) as new:
        new.write("".join(f"{line}\n" for line in [*kept, json.dumps(row)]).encode())
