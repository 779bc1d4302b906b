"""The best checkpoint of a run, by the first of several figures that can be computed."""

import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.utilities import rank_zero_only
from torch import Tensor


class BestCheckpoint(ModelCheckpoint):
    """Lightning's `ModelCheckpoint`, which no figure decides that is missing or not finite.

    Where `monitor` cannot be computed, such as KID of a single image, `fallback` decides. Where neither can, no
    checkpoint is written, and the last one stands for the run. Scores travel with the folder: a run that was moved or
    copied keeps its best checkpoint until a better one comes.

    Args:
        monitor: the figure that decides; null: `val/kid`, or `val_ema/kid` of the averaged weights if there are any.
        fallback: the figure that decides where `monitor` cannot be computed; null: the monitor of the task, if
            `monitor` is null, too.
        options: those of `ModelCheckpoint`.
    """

    def __init__(self, monitor: str | None = None, fallback: str | None = None, **options: Any) -> None:
        super().__init__(monitor=monitor, **options)
        self._line = [name for name in (monitor, fallback) if name is not None]
        self._said = False

    @property
    def state_key(self) -> str:
        """Return the key of the state in checkpoints, which does not depend on the options."""
        return type(self).__name__

    def state_dict(self) -> dict[str, Any]:
        """Return the scores, and by which figure they are."""
        return {**super().state_dict(), "mode": self.mode}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the scores of the checkpoints that are in the folder of this run."""
        here = Path(self.dirpath or ".")
        scores = {str(here / Path(path).name): score for path, score in state_dict["best_k_models"].items()}
        scores = {path: score for path, score in scores.items() if Path(path).is_file() and math.isfinite(score)}
        same = state_dict["monitor"] in self._line and state_dict.get("mode", self.mode) == self.mode
        if not scores or not same:
            return
        ranked = sorted(scores, key=lambda path: float(scores[path]), reverse=self.mode == "max")
        self.monitor, self.best_k_models = state_dict["monitor"], scores
        self.best_model_path, self.best_model_score = ranked[0], scores[ranked[0]]
        self.kth_best_model_path, self.kth_value = ranked[-1], scores[ranked[-1]]

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Restore the scores of versions that used Lightning's callback itself."""
        states: Mapping[str, Any] = checkpoint.get("callbacks", {})
        earlier = [state for key, state in states.items() if key.startswith("ModelCheckpoint{'monitor': 'val")]
        if earlier and self.state_key not in states:
            self.load_state_dict(earlier[0])

    def _save_topk_checkpoint(self, trainer: pl.Trainer, monitor_candidates: dict[str, Tensor]) -> None:
        computed = [name for name in self._line if _is_finite(monitor_candidates.get(name))]
        if self.save_top_k != 0 and computed[:1] != self._line[:1]:
            self._say(computed, monitor_candidates)
        decides = computed[0] if computed else None
        if decides is None or (self.best_k_models and self._place(decides) > self._place(self.monitor)):
            return
        if decides != self.monitor:
            self.monitor, self.best_k_models = decides, {}  # scores by another figure cannot be compared
        super()._save_topk_checkpoint(trainer, monitor_candidates)

    def _place(self, name: str | None) -> int:
        return self._line.index(name) if name in self._line else len(self._line)

    def _say(self, computed: list[str], known: Mapping[str, Tensor]) -> None:
        """Say once what decides instead of the figure that was wanted."""
        wanted = self._line[0] if self._line else "none"
        if wanted in known:
            problem = f"{wanted} is {float(known[wanted]):.4g}"
        else:
            names = ", ".join(sorted(name for name in known if name.startswith("val")))
            problem = f"{wanted} is not logged; there are {names or 'no figures'}"
        then = f"goes by {computed[0]}" if computed else "is not written, and last.ckpt stands for the run"
        if not self._said:
            rank_zero_only(print)(f"cyclestyle: warning: best.ckpt {then}, because {problem}", file=sys.stderr)
        self._said = True


def _is_finite(figure: Tensor | None) -> bool:
    return figure is not None and math.isfinite(float(figure))
