"""Translators in a folder or a repository of the Hugging Face Hub: weights, config and a model card."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from cyclestyle.data.folders import find_images
from cyclestyle.errors import CheckpointError, optional
from cyclestyle.files import write_file, write_json
from cyclestyle.tasks.base import Direction
from cyclestyle.tasks.exporting import Exporting, any_network, describe, directions, run_config
from cyclestyle.tasks.load import translating
from cyclestyle.weights.exported.weights_file import write_weights

if TYPE_CHECKING:
    from cyclestyle.tasks.translator import Translator

WEIGHTS, CONFIG, CARD, GRID = "model.safetensors", "config.json", "README.md", "samples.png"


@dataclass(frozen=True, kw_only=True)
class Run:
    """What a model card says of a training run.

    Attributes:
        config: its config.
        figures: its last evaluation, with the name of the extractor.
        grid: the newest of its sample grids; None if there is none.
        images: number of training images in each domain.
    """

    config: Mapping[str, Any] = field(default_factory=dict)
    figures: Mapping[str, Any] = field(default_factory=dict)
    grid: Path | None = None
    images: Mapping[str, int] = field(default_factory=dict)


def save(translator: "Translator", folder: Path, *, licence: str) -> None:
    """Write `model.safetensors`, `config.json` and the model card `README.md` into a folder.

    Args:
        translator: the method with its weights. The card describes the run of the checkpoint that it was loaded from.
        folder: where to write.
        licence: of the weights.

    Raises:
        CheckpointError: the translator is an exported file, whose weights cannot be taken out, or its weights have been
            rounded to bfloat16 for speed.
        CycleStyleError: safetensors is not installed, or the folder cannot be written.
    """
    task = translator.task
    weights = translating(task)
    if not weights:
        raise CheckpointError(f"a {type(task).__name__} has no weights to save; load the checkpoint that it is from")
    if any(value.dtype == torch.bfloat16 for value in weights.values()):
        raise CheckpointError(
            "these weights have been rounded to bfloat16; load the translator with speed='exact' to save it"
        )
    found = read_run(translator.checkpoint)
    wanted = Exporting(
        format="safetensors", direction=task.direction, licence=licence, training=found.config, checks=()
    )
    description = describe(task, wanted, any_network(task, wanted))
    folder.mkdir(parents=True, exist_ok=True)
    write_weights(weights, description, folder / WEIGHTS)
    write_json(folder / CONFIG, {"library_name": "cyclestyle", "direction": task.direction, **asdict(description)})
    if found.grid is not None:
        write_file(folder / GRID, found.grid.read_bytes())
    write_file(folder / CARD, model_card(asdict(description), found, list(directions(task))))


def push(translator: "Translator", repository: str, *, licence: str, **options: Any) -> str:
    """Upload a translator by the mixin of huggingface_hub; see `Translator.push_to_hub`.

    Raises:
        CycleStyleError: huggingface_hub or safetensors is not installed.
    """
    mixin = optional("huggingface_hub", "the Hugging Face Hub", "hub").ModelHubMixin

    class Uploaded(mixin):  # type: ignore[misc, valid-type]
        """What the mixin uploads."""

        def _save_pretrained(self, save_directory: Path) -> None:
            save(translator, Path(save_directory), licence=licence)

    return str(Uploaded().push_to_hub(repository, **options))


def saved_direction(folder: Path) -> Direction:
    """Return the direction that was saved; `AtoB` if the config says nothing."""
    try:
        direction = json.loads((folder / CONFIG).read_text()).get("direction")
    except (OSError, ValueError, AttributeError):
        return "AtoB"
    return "BtoA" if direction == "BtoA" else "AtoB"


def read_run(checkpoint: Path | None) -> Run:
    """Read what a model card says of the run of a checkpoint; nothing for any other file."""
    if checkpoint is None:
        return Run()
    folder = checkpoint if checkpoint.is_dir() else checkpoint.parent.parent
    if not (folder / "checkpoints").is_dir():
        return Run()
    config = run_config(checkpoint)
    grids = sorted((folder / "grids").glob("*.png"), key=lambda path: path.stat().st_mtime)
    return Run(
        config=config,
        figures=_last_evaluation(folder / "evaluation.jsonl"),
        grid=grids[-1] if grids else None,
        images=_count_images(config),
    )


def model_card(description: Mapping[str, Any], run: Run, ways: list[str]) -> str:
    """Return the text of a model card."""
    licence = str(description["licence"])
    method = description["method"]
    lines = ["---", "library_name: cyclestyle", "pipeline_tag: image-to-image"]
    lines += ["license: other", f"license_name: {json.dumps(licence)}"]
    lines += ["tags:", "- cyclestyle", "- image-to-image", "- unpaired", "---", ""]
    lines += [f"# {method} by cyclestyle", ""]
    lines += [f"Translates images of any size in the direction {' and '.join(ways)}. Values are in [-1, 1].", ""]
    if run.grid is not None:
        lines += [f"![Sample grid of the training run]({GRID})", ""]
    lines += ["## Use", "", "```python", "from cyclestyle import Translator", ""]
    lines += ['translate = Translator.from_pretrained("NAME/OF/THIS/REPOSITORY")  # or a local folder']
    lines += ['translate.save(translate("photo.jpg"), "translated.jpg")', "```", ""]
    lines += ["## Training", ""]
    for domain, count in run.images.items():
        lines.append(f"- {domain}: {count} images")
    for name, value in dict(description["settings"]).items():
        lines.append(f"- {name}: {value}")
    if run.figures:
        lines += ["", "## Figures", "", "Of the last evaluation on the held-out images of the run:", ""]
        lines += ["| figure | value |", "|---|---|"]
        lines += [
            f"| {name} | {value:.4g} |" if isinstance(value, float) else f"| {name} | {value} |"
            for name, value in run.figures.items()
        ]
    lines += [
        "",
        "## Licence",
        "",
        f"Of the weights: {licence}. They may also depend on the licence of the images.",
        "",
    ]
    return "\n".join(lines)


def folder_of(name: str | Path, **options: Any) -> Path:
    """Return the folder of a translator: a local one, or that of a repository, downloaded once.

    Args:
        name: a folder, or a repository of the Hub such as `user/name`.
        options: those of `huggingface_hub.snapshot_download`, such as `revision` and `token`.

    Raises:
        CheckpointError: it is neither, or the repository cannot be reached and has not been downloaded before.
    """
    path = Path(name)
    if path.is_dir():
        if not (path / WEIGHTS).is_file():
            raise CheckpointError(f"{path} has no {WEIGHTS}; expected a folder that save_pretrained has written")
        return path
    hub = optional("huggingface_hub", "loading from the Hub", "hub")
    try:
        return Path(hub.snapshot_download(str(name), allow_patterns=[WEIGHTS, CONFIG], **options))
    except Exception as error:  # of many kinds
        reason = " ".join(str(error).split())[:160]
        raise CheckpointError(
            f"{name} is no folder, and cannot be downloaded from the Hugging Face Hub ({reason})"
        ) from error


def _last_evaluation(path: Path) -> dict[str, Any]:
    """The last row of the evaluation log that is complete."""
    if not path.is_file():
        return {}
    for line in reversed(path.read_text().splitlines()):
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict):
            return _flat(row)
    return {}


def _flat(row: Mapping[str, Any]) -> dict[str, Any]:
    """Figures with the name of their weights and direction, such as `ema AtoB kid`."""
    flat: dict[str, Any] = {}
    for key, value in row.items():
        if isinstance(value, Mapping):
            flat |= {f"{key} {name}": one for name, one in value.items() if isinstance(one, int | float | str)}
        elif isinstance(value, int | float | str):
            flat[key] = value
    return flat


def _count_images(config: Mapping[str, Any]) -> dict[str, int]:
    """The number of training images of each domain, where the folders are still there."""
    settings = dict((config.get("data") or {}).get("init_args") or {})
    root = settings.get("root")
    if not isinstance(root, str):
        return {}
    folders = {f"domain {letter}": Path(root).expanduser() / f"train{letter}" for letter in "AB"}
    return {name: len(find_images(folder)) for name, folder in folders.items() if folder.is_dir()}
