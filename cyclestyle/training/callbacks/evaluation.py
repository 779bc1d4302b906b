"""Measures the translations of the test split, at every validation and by `test`."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import EarlyStopping
from pytorch_lightning.trainer.states import TrainerFn
from pytorch_lightning.utilities import rank_zero_only
from torch import Tensor

from cyclestyle.data.datamodule import domains_of
from cyclestyle.errors import CycleStyleError
from cyclestyle.files import write_file
from cyclestyle.metrics import (
    METRICS,
    ExtractorName,
    ImageName,
    build_extractor,
    columns,
    embed,
    finite,
    mean,
    measure_domains,
    measure_images,
    summarise,
)
from cyclestyle.networks.method import DOMAINS, Direction
from cyclestyle.tasks.base import Task, as_task, batch_size
from cyclestyle.training.callbacks.ema import EMAGenerators
from cyclestyle.training.shown import shown

T = TypeVar("T")
Measured = dict[str, Any]
"""What is kept of a translated image, on the CPU: its `embedding` `(2, C)`, see `embed`, and each metric by name."""


class Evaluation(pl.Callback):
    """Measures each direction of the task on the test split, for the raw and, if there are any, averaged weights.

    Logs every metric of `cyclestyle.metrics.METRICS` that applies, as `val/kid_AtoB`, `val/content_AtoB` and so on,
    and `val/kid`, the mean over the directions, which `best.ckpt` goes by; for averaged weights under `val_ema/`.
    KID and FID compare the translations of the test split with the training images of the target domain, and a probe
    learns from the training images of both domains which of them an image belongs to. The
    extractor and the counts are beside each figure in `<run>/evaluation.jsonl`. Each image counts once, however often
    a loader repeats it. Tasks without directions are not measured.

    Args:
        extractor: `statistics` (needs no file), `squeezenet`, `vgg`, `vgg16`, `inception`, or `none` for no evaluation.
        weights: a file for the extractor.
        max_reals: training images of each domain to compare with.

    Attributes:
        table: the figures of the latest validation or test, by variant and direction, such as `raw AtoB`.
        measured: what was measured of each image: by variant (`raw`, `ema`), direction and path.
        samples: what `sample` returned for the latest batch, by variant.
    """

    def __init__(
        self, extractor: ExtractorName | str = "statistics", weights: str | None = None, max_reals: int = 500
    ) -> None:
        if max_reals < 2:
            raise ValueError(f"max_reals must be at least 2, got {max_reals}")
        self.extractor = None if extractor == "none" else build_extractor(extractor, weights)  # type: ignore[arg-type]
        self.max_reals = max_reals
        self.table: dict[str, dict[str, Any]] = {}
        self.samples: dict[str, dict[str, Tensor]] = {}
        self.measured: dict[str, dict[str, dict[str, Measured]]] = {}
        self._truths: set[str] = set()  # domains whose translations have true counterparts
        self._domains: dict[str, Tensor] = {}  # embeddings of the training images

    def figures(self, task: Task) -> list[str]:
        """Return the names of what is logged for each variant, once `sample` has been called in the sanity check."""
        if self.extractor is None or not task.directions:
            return []
        sample = self.samples.get("raw", {})
        names = [
            f"{name}_{direction}"
            for direction in task.directions
            for name, metric in METRICS.items()
            if set(metric.images) <= self._given(direction, sample)  # those of sets need none
        ]
        return ["kid", *(f"kid_std_{direction}" for direction in task.directions), *names]

    def _given(self, direction: Direction, sample: Mapping[str, Tensor]) -> set[ImageName]:
        """The images that metrics of a direction can take."""
        return {*images_of(direction, sample), *(("truth",) if DOMAINS[direction][1] in self._truths else ())}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Say which figures cannot be computed, because KID and FID need two images.

        Raises:
            CycleStyleError: early stopping goes by one of them.
        """
        few = self._too_few(trainer, as_task(pl_module))
        if not few:
            return
        reason = f"KID and FID need two images, but {' and '.join(few.values())}"
        nowhere = {name for direction in few for name in (f"kid_{direction}", f"fid_{direction}", "kid")}
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, EarlyStopping) and callback.monitor.rpartition("/")[2] in nowhere:
                raise CycleStyleError(f"early stopping goes by {callback.monitor}. {reason}; choose another figure")
        rank_zero_only(print)(f"cyclestyle: warning: {reason}; val/kid cannot be computed", file=sys.stderr)

    def _too_few(self, trainer: pl.Trainer, task: Task) -> dict[str, str]:
        """The directions whose sets of images are too small, and which set that is."""
        data = domains_of(trainer)
        batches = sum(trainer.num_val_batches)
        if self.extractor is None or not batches or data is None:
            return {}
        few: dict[str, str] = {}
        for direction in task.directions:
            source, target = DOMAINS[direction]
            measured = min(len(data.paths(f"test_{source}")), int(batches * data.batch_size * trainer.world_size))
            if measured < 2:
                few[direction] = f"only one test image of {source} is measured"
            elif len(data.paths(f"train_{target}")) < 2:
                few[direction] = f"{target} has only one training image"
        return few

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Reset the figures."""
        self.measured, self.table = {}, {}

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Reset the figures."""
        self.measured, self.table = {}, {}

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Measure the images of a batch."""
        self.samples = {"raw": outputs}
        self._truths = {name[-1] for name in batch if name.startswith("truth_")}
        if trainer.sanity_checking:
            return
        task = as_task(pl_module)
        ema = ema_of(trainer)
        if ema is not None:
            with ema.in_place(task):
                self.samples["ema"] = sample = task.sample(batch)
                figures = {} if trainer.testing else task.figures(batch, sample)
            for name, value in figures.items():  # beside those of the task, which are of the raw weights
                pl_module.log(f"val_ema/{name}", value, batch_size=batch_size(batch), sync_dist=True)
        if self.extractor is not None:
            for variant, sample in self.samples.items():
                self._measure(task, variant, sample, batch)

    def on_test_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Measure the images of a batch."""
        self.on_validation_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def _measure(self, task: Task, variant: str, sample: Mapping[str, Tensor], batch: Mapping[str, Any]) -> None:
        assert self.extractor is not None
        for direction in task.directions:
            source, target = DOMAINS[direction]
            known = self.measured.setdefault(variant, {}).setdefault(direction, {})
            paths = batch.get(f"paths_{source}") or numbered_images(len(known), len(batch[source]), task)
            if known.keys() >= set(paths):
                continue  # the loader repeats the smaller domain
            named = images_of(direction, sample)
            images = {role: shown(task.trainer, name, sample[name].float()) for role, name in named.items()}
            truth = batch.get(f"truth_{target}")
            if truth is not None:
                images["truth"] = shown(task.trainer, target, truth.float())
            extractor = self.extractor.to(images["translation"].device)
            embeddings = embed(extractor, images["translation"]).cpu()
            figures = measure_images(extractor, images)
            for number, (path, embedding, each) in enumerate(zip(paths, embeddings, figures, strict=True)):
                alone = truth is not None and bool(truth[number].isnan().any())
                kept = {name: one for name, one in each.items() if not (alone and "truth" in METRICS[name].images)}
                known[path] = {"embedding": embedding, **kept}

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log the figures, so that checkpoints and early stopping can go by them."""
        self._log(trainer, pl_module, "val")

    def on_test_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log the figures."""
        self._log(trainer, pl_module, "test")

    def _log(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if trainer.sanity_checking or not self.measured:
            return
        for variant, directions in self.measured.items():
            prefix = stage if variant == "raw" else f"{stage}_{variant}"
            for direction, measured in directions.items():
                domains = [self._embeddings(trainer, pl_module, domain) for domain in (direction[0], direction[-1])]
                row = self._row(gathered(measured, trainer), *domains)
                self.table[f"{variant} {direction}"] = row
                for name in ("kid_std", *columns(row)):
                    pl_module.log(f"{prefix}/{name}_{direction}", row[name], batch_size=1)
            kids = [self.table[f"{variant} {direction}"]["kid"] for direction in directions]
            pl_module.log(f"{prefix}/kid", mean(kids), batch_size=1)
        fits = trainer.state.fn == TrainerFn.FITTING and not trainer.fast_dev_run  # type: ignore[attr-defined]
        if trainer.is_global_zero and fits:  # `validate` leaves the history of the run as it is
            rows = {name: finite(row) for name, row in self.table.items()}
            file = Path(trainer.default_root_dir) / "evaluation.jsonl"
            append_step(file, {"step": trainer.global_step, "epoch": trainer.current_epoch, **rows})

    def _row(self, measured: dict[str, Measured], source: Tensor, target: Tensor) -> dict[str, Any]:
        """The means over the images, and how near they are to the target domain."""
        assert self.extractor is not None
        each = [measured[path] for path in sorted(measured)]
        embeddings = torch.stack([one["embedding"] for one in each])
        return {**summarise(each), **measure_domains(source, target, embeddings, self.extractor.name)}

    def _embeddings(self, trainer: pl.Trainer, pl_module: pl.LightningModule, domain: str) -> Tensor:
        """The embeddings of the training images of a domain, computed once a run."""
        if domain not in self._domains:
            assert self.extractor is not None
            data = domains_of(trainer)
            if data is None:
                raise CycleStyleError(
                    "evaluation needs the training images of both domains; train with UnpairedImages, "
                    "or set evaluation.extractor to none"
                )
            loader = data.domain_images(f"train_{domain}", self.max_reals)
            with torch.no_grad():
                images = (shown(trainer, domain, batch.to(pl_module.device)) for batch in loader)
                batches = [embed(self.extractor, one).cpu() for one in images]
            self._domains[domain] = torch.cat(batches)
        return self._domains[domain]


def images_of(direction: Direction, sample: Mapping[str, Tensor]) -> dict[ImageName, str]:
    """Return the names in a sample of the images that metrics take."""
    source, target = DOMAINS[direction]
    names: dict[ImageName, str] = {"input": f"real_{source}", "translation": f"fake_{target}"}
    names["reconstruction"] = f"rec_{source}"
    return {role: name for role, name in names.items() if name in sample}


def numbered_images(known: int, count: int, task: Task) -> list[str]:
    """Return names for the next images of a process, for data without paths; no process has those of another."""
    ranks = task.trainer.world_size
    return [f"image {(known + n) * ranks + task.global_rank + 1:05}" for n in range(count)]


def ema_of(trainer: pl.Trainer) -> EMAGenerators | None:
    """Return the callback that holds averaged weights, if there are any."""
    found = [callback for callback in trainer.callbacks if isinstance(callback, EMAGenerators)]  # type: ignore[attr-defined]
    return found[0] if found and found[0].weights else None


def gathered(measured: dict[str, T], trainer: pl.Trainer) -> dict[str, T]:
    """Return what all processes know of their images, by path."""
    if trainer.world_size == 1:
        return measured
    everyone: list[Any] = [None] * trainer.world_size
    torch.distributed.all_gather_object(everyone, measured)
    return {path: one for part in everyone for path, one in part.items()}


def append_step(file: Path, row: dict[str, Any]) -> None:
    """Append a line; lines of the same or later steps are from before a resume, and are removed."""
    lines = file.read_text().splitlines() if file.exists() else []
    kept = [line for line in lines if json.loads(line)["step"] < row["step"]]
    write_file(file, "".join(f"{line}\n" for line in [*kept, json.dumps(row)]))
