"""Translators in a folder or a repository of the Hugging Face Hub: weights, config and a model card."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from cyclestyle.errors import CheckpointError, optional
from cyclestyle.files import write_file, write_json
from cyclestyle.images.folders import find_images
from cyclestyle.metrics import METRICS
from cyclestyle.sharing.exporting import Exporting, any_network, describe, run_config
from cyclestyle.translation.engine import Engine
from cyclestyle.weights.exported.weights_file import write_weights
from cyclestyle.weights.resolve import CONFIG, WEIGHTS, hub_folder

CARD, GRID = "README.md", "samples.png"

LICENCES = """
    afl-3.0 agpl-3.0 apache-2.0 artistic-2.0 bsd-2-clause bsd-3-clause bsd-3-clause-clear bsl-1.0 c-uda cc0-1.0
    cc-by-2.0 cc-by-2.5 cc-by-3.0 cc-by-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0
    cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cc-by-nd-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cdla-permissive-1.0
    cdla-permissive-2.0 cdla-sharing-1.0 creativeml-openrail-m ecl-2.0 epl-1.0 epl-2.0 eupl-1.1 eupl-1.2 gfdl gpl
    gpl-2.0 gpl-3.0 isc lgpl lgpl-2.1 lgpl-3.0 mit mpl-2.0 ms-pl ncsa odbl odc-by ofl-1.1 openrail openrail++ osl-3.0
    pddl postgresql unlicense wtfpl zlib
    """
"""The licences that the Hugging Face Hub knows by name; most are those of SPDX in lower case."""


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


def save(engine: Engine, checkpoint: Path | None, folder: Path, *, licence: str) -> None:
    """Write `model.safetensors`, `config.json` and the model card `README.md` into a folder.

    Args:
        engine: the method with its weights, and its direction.
        checkpoint: what it was loaded from; the card describes its run.
        folder: where to write.
        licence: of the weights.

    Raises:
        CheckpointError: the translator is an exported file, whose weights cannot be taken out, or its weights have been
            rounded to bfloat16 for speed.
        CycleStyleError: safetensors is not installed, or the folder cannot be written.
    """
    method = engine.method
    weights = method.translating_weights()
    if not weights:
        raise CheckpointError(f"a {method.name} has no weights to save; load the checkpoint that it is from")
    if any(value.dtype == torch.bfloat16 for value in weights.values()):
        raise CheckpointError(
            "these weights have been rounded to bfloat16; load the translator with speed='exact' to save it"
        )
    found = read_run(checkpoint)
    wanted = Exporting(
        format="safetensors", direction=engine.direction, licence=licence, training=found.config, checks=()
    )
    description = describe(method, wanted, any_network(method, wanted))
    folder.mkdir(parents=True, exist_ok=True)
    write_weights(weights, description, folder / WEIGHTS)
    write_json(folder / CONFIG, {"library_name": "cyclestyle", "direction": engine.direction, **asdict(description)})
    if found.grid is not None:
        write_file(folder / GRID, found.grid.read_bytes())
    write_file(folder / CARD, model_card(asdict(description), found, list(method.known_directions)))


def push(engine: Engine, checkpoint: Path | None, repository: str, *, licence: str, **options: Any) -> str:
    """Upload a translator by the mixin of huggingface_hub; see `Translator.push_to_hub`.

    Raises:
        CycleStyleError: huggingface_hub or safetensors is not installed.
    """
    mixin = optional("huggingface_hub", "the Hugging Face Hub", "hub").ModelHubMixin

    class Uploaded(mixin):  # type: ignore[misc, valid-type]
        """What the mixin uploads."""

        def _save_pretrained(self, save_directory: Path) -> None:
            save(engine, checkpoint, Path(save_directory), licence=licence)

    return str(Uploaded().push_to_hub(repository, **options))


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
    known = licence.lower().removesuffix("-only").removesuffix("-or-later")
    lines += (
        [f"license: {known}"]
        if known in LICENCES.split()
        else ["license: other", f"license_name: {json.dumps(licence)}"]
    )
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
            f"| {in_words(name)} | {value:.4g} |" if isinstance(value, float) else f"| {in_words(name)} | {value} |"
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


def in_words(figure: str) -> str:
    """Return the name of a figure as a reader knows it: `KID, AtoB, averaged weights` for `ema AtoB kid`."""
    weights = {"ema": "averaged weights", "raw": "weights of the last step"}
    *parts, name = figure.split(" ")
    label = METRICS[name].label if name in METRICS else name.replace("_", " ")
    return ", ".join([label, *(weights.get(part, part) for part in reversed(parts))])


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
    return hub_folder(str(name), **options)


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
