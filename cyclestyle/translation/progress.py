"""Progress bars of translation, on a terminal."""

import sys
from types import TracebackType
from typing import Any, Self

from torch import Tensor
from tqdm import tqdm

from cyclestyle.translation.engine import Engine
from cyclestyle.translation.reading import Batch


class Progress:
    """Shows the files that are done, and the rest of a file that takes long. It is a context, which closes the bars.

    Within a file one bar counts the frames of a video, another shows the losses of an optimisation or the rest of a
    large image.

    Args:
        total: number of files.
        engine: what translates; it calls this object after each strip of an image, or each evaluation of the losses.
        enabled: whether to show the bars.
    """

    EVERY = 10  # evaluations between two updates of the losses, each of which synchronises the device

    def __init__(self, total: int, engine: Engine, enabled: bool = True) -> None:
        self.enabled = enabled and sys.stderr.isatty()
        self._files: tqdm[Any] | None = None
        self._frames: tqdm[Any] | None = None
        self._image: tqdm[Any] | None = None
        if self.enabled:
            self._files = tqdm(total=total, desc="Translating", unit="image", dynamic_ncols=True)
            engine.on_progress, engine.method.on_evaluation = self._show_share, self._show_losses

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the bars, before an error is printed."""
        for bar in (self._image, self._frames, self._files):
            if bar is not None:
                bar.close()

    def add(self, batch: Batch) -> None:
        """Count the files that a batch completes, and the frames of a video.

        Frames of an earlier run count as done, but not for the time that is left.
        """
        if self._files is None:
            return
        self._files.update(sum(piece.number + 1 == piece.count for piece in batch.pieces) + len(batch.failures))
        if batch.video is None:
            return
        first, last = batch.pieces[0], batch.pieces[-1]
        if self._frames is None:
            self._frames = tqdm(
                total=first.count, initial=first.number, desc=batch.video.name, unit="frame", position=1, leave=False
            )
        self._frames.update(last.number + 1 - self._frames.n)
        if last.number + 1 == last.count:
            self._frames.close()
            self._frames = None

    def _show_share(self, share: float) -> None:
        if self._image is None:
            form = "{desc}: {percentage:3.0f}%|{bar}| {elapsed}<{remaining}"
            self._image = self._inner(total=1.0, desc="Large image", bar_format=form)
        self._image.update(share - self._image.n)
        if share >= 1:
            self._close_image()

    def _show_losses(self, done: int, evaluations: int, losses: dict[str, Tensor]) -> None:
        if done == 1:
            self._close_image()
            self._image = self._inner(total=evaluations, desc="Painting")
        assert self._image is not None
        self._image.update()
        if done % self.EVERY == 0 or done == evaluations:
            texts = {name: f"{float(loss):.3g}" for name, loss in losses.items() if loss}
            self._image.set_postfix(texts, refresh=False)
        if done == evaluations:
            self._close_image()

    def _inner(self, **options: Any) -> "tqdm[Any]":
        position = 1 if self._frames is None else 2
        return tqdm(leave=False, position=position, dynamic_ncols=True, **options)

    def _close_image(self) -> None:
        if self._image is not None:
            self._image.close()
            self._image = None
