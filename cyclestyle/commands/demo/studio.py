"""What visitors of the demo do with the checkpoints, one at a time; nothing here knows how the page looks."""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

import torch
from PIL import Image

from cyclestyle.errors import CycleStyleError, ImageError
from cyclestyle.images import (
    ImageFile,
    finish,
    has_video,
    is_video,
    read_header,
    read_image,
    read_video,
    target_format,
    to_pil,
    to_tensor,
    write_frames,
)
from cyclestyle.networks.method import Direction, Method
from cyclestyle.networks.streaming import OnProgress
from cyclestyle.translation.jobs import make_plan
from cyclestyle.translation.reading import Batch
from cyclestyle.translation.run import Options, translate_files
from cyclestyle.translation.wishes import finish_as
from cyclestyle.translator import Translator
from cyclestyle.weights.resolve import resolve_checkpoint

PREVIEW = 1400
"""Longest side of the images that the page shows; the download has the size of the upload."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a visitor may ask for.

    Attributes:
        megapixels: of an image, or of a frame of a video.
        frames: of a video.
    """

    megapixels: float = 24.0
    frames: int = 600


@dataclass(frozen=True, kw_only=True)
class Wishes:
    """What a visitor has chosen beside an image; what a method does not have is ignored.

    Attributes:
        direction: one of those of the checkpoint.
        style: name of a style, for methods that have learnt several.
        second: name of the style that it is mixed with; None for none.
        share: of the second style, in [0, 1].
        painting: a file with the style image, for methods that take one.
        strength: share of the translation, in [0, 1].
        preserve_color: keep the colours of the image.
    """

    direction: str = "AtoB"
    style: str | None = None
    second: str | None = None
    share: float = 0.5
    painting: str | Path | None = None
    strength: float = 1.0
    preserve_color: bool = False


def nothing(share: float) -> None:
    """Show no progress."""


@dataclass(frozen=True)
class Translation:
    """Previews of an image before and after, and the file of the translation in full size."""

    before: Image.Image
    after: Image.Image
    file: Path


class Studio:
    """The checkpoints of a demo.

    Args:
        translators: by the names that visitors choose.
        checkpoints: the file of each of them.
        folder: where results are written; each gets a folder of its own.
        limits: what a visitor may ask for.
    """

    def __init__(
        self,
        translators: Mapping[str, Translator],
        checkpoints: Mapping[str, str],
        folder: Path,
        limits: Limits,
    ) -> None:
        self.translators, self.checkpoints = dict(translators), dict(checkpoints)
        self.folder, self.limits = folder, limits
        self._lock = Lock()  # a method has one direction and one style at a time

    def method(self, name: str) -> Method:
        """Return the method of a checkpoint."""
        return self.translators[name].method

    def directions(self, name: str) -> list[Direction]:
        """Return the directions that a checkpoint translates in."""
        return list(self.method(name).known_directions)

    def translate(
        self, name: str, upload: str | Path | None, wishes: Wishes, on_progress: OnProgress = nothing
    ) -> Translation:
        """Translate an image.

        Args:
            name: of the checkpoint.
            upload: the file that a visitor has sent.
            wishes: what the visitor has chosen.
            on_progress: called with the share that is done, where the image takes long.

        Raises:
            CycleStyleError: a text for the visitor: no image, too large a one, or no style.
        """
        path = self._checked(upload, "the image")
        translator = self.translators[name]
        with self._lock:
            self._prepare(name, wishes, on_progress)
            file = ImageFile(path)
            try:
                pixels, source = file.read(0, translator.in_channels, levels=True)
            finally:
                file.close()
            try:
                result = translator.translate(pixels[None])[0]
            except (MemoryError, torch.OutOfMemoryError) as error:
                text = "The image does not fit into the memory of this server. Make it smaller first."
                raise CycleStyleError(text) from error
        form, target = target_format(path)
        written = self._new_folder() / f"{Path(target).stem[:60]}-translated{Path(target).suffix or '.png'}"
        write_frames([finish(result, source, form)], written, form)
        before, after = read_image(path), to_pil(result, source).convert("RGB")
        for one in (before, after):
            one.thumbnail((PREVIEW, PREVIEW))
        return Translation(before, after, written)

    def translate_video(
        self, name: str, upload: str | Path | None, wishes: Wishes, on_progress: OnProgress = nothing
    ) -> Path:
        """Translate a video, and return its file; `on_progress` is called with the share of its frames.

        Raises:
            CycleStyleError: a text for the visitor.
        """
        if upload is None or not is_video(Path(upload)):
            raise CycleStyleError("That file is no video that can be read. Choose an MP4, MOV, MKV or WebM file.")
        path, translator = Path(upload), self.translators[name]
        self._check_video(path)
        if translator.method.takes_styles:
            raise CycleStyleError("Videos need a checkpoint that has learnt its style. Choose another checkpoint.")
        output = self._new_folder() / f"{path.stem[:60]}-translated{path.suffix}"
        with self._lock:
            self._prepare(name, wishes)
            jobs, options = make_plan([path], output).jobs, Options(progress=False)
            report = translate_files(
                translator.engine, jobs, options, on_batch=lambda batch: on_progress(_share_of_frames(batch))
            )
        if report.failures or not output.is_file():
            raise CycleStyleError("The video cannot be translated. It may be damaged.")
        return output

    def thumbnails(self, name: str, photo: Path, side: int) -> dict[str, Image.Image]:
        """Paint a photo in each style of a checkpoint that has learnt several.

        Args:
            name: of the checkpoint.
            photo: the photo.
            side: longest side of the results, at which they are painted.
        """
        image = read_image(photo)
        image.thumbnail((side, side))
        painted = {}
        for style in self.method(name).style_names:
            with self._lock:
                self._prepare(name, Wishes(style=style))
                painted[style] = self.translators[name](image)
        return painted

    def _prepare(self, name: str, wishes: Wishes, on_progress: OnProgress = nothing) -> None:
        engine, method = self.translators[name].engine, self.method(name)
        engine.on_progress = on_progress
        method.on_evaluation = lambda done, evaluations, losses: on_progress(done / evaluations)
        known = method.known_directions
        engine.direction = next((one for one in known if one == wishes.direction), known[0])
        strength = min(max(float(wishes.strength), 0.0), 1.0)
        checkpoint = resolve_checkpoint(self.checkpoints[name])
        finish_as(engine, checkpoint, strength=strength, preserve_color=wishes.preserve_color)
        if method.style_names:
            names = method.style_names
            pair = [one for one in (wishes.style, wishes.second) if one in names] or names[:1]
            share = min(max(float(wishes.share), 0.0), 1.0)
            method.use_styles(pair, [1 - share, share] if len(pair) == 2 else None)
        if method.takes_styles:
            if wishes.painting is None:
                raise CycleStyleError("This checkpoint paints in the style of another image. Choose a style image.")
            image = read_image(self._checked(wishes.painting, "the style image"))
            image.thumbnail((1024, 1024))
            method.use_styles([to_tensor(image)])

    def _checked(self, upload: str | Path | None, what: str) -> Path:
        """The path of an upload that is an image of a size that is allowed."""
        if upload is None:
            raise CycleStyleError("Choose an image first: upload, paste or take one.")
        try:
            width, height = read_header(Path(upload)).size
        except ImageError as error:
            text = f"{what.capitalize()} is no image that can be read. Choose a JPEG, PNG, WebP, TIFF or GIF file."
            raise CycleStyleError(text) from error
        megapixels = width * height / 1e6
        if megapixels > self.limits.megapixels:
            raise CycleStyleError(
                f"{what.capitalize()} has {megapixels:.1f} megapixels; at most {self.limits.megapixels:g} are "
                "translated here. Make it smaller first."
            )
        return Path(upload)

    def _check_video(self, path: Path) -> None:
        if not has_video():
            raise CycleStyleError("Videos need PyAV on this server: pip install av")
        try:
            video = read_video(path)
        except ImageError as error:
            raise CycleStyleError("That file is no video that can be read. Choose an MP4 or WebM file.") from error
        width, height = video.size
        if width * height / 1e6 > self.limits.megapixels or len(video.timestamps) > self.limits.frames:
            limits = f"at most {self.limits.frames} frames of {self.limits.megapixels:g} megapixels are translated here"
            raise CycleStyleError(f"The video has {len(video.timestamps)} frames of {width}×{height} pixels; {limits}.")

    def _new_folder(self) -> Path:
        return Path(tempfile.mkdtemp(dir=self.folder))


def _share_of_frames(batch: Batch) -> float:
    """How far a video is behind a batch."""
    return max((piece.number + 1) / piece.count for piece in batch.pieces) if batch.pieces else 0.0
