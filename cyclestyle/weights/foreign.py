"""Files of other programs: what each one holds, as a task of this package that runs it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from cyclestyle.errors import CheckpointError
from cyclestyle.weights.fast_neural_style import is_example, read_example
from cyclestyle.weights.official import (
    METHODS,
    GeneratorShape,
    batch_norms,
    build,
    check_weights,
    cleaned,
    read_official,
    read_shape,
    unwrapped,
    without_batch_norms,
)

Content = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Contents:
    """A task, the constructor arguments that build it, and its weights.

    Attributes:
        translating_only: whether the weights are only those that translating needs, without discriminators.
    """

    task: str
    settings: dict[str, Any] = field(default_factory=dict)
    weights: dict[str, Tensor]
    translating_only: bool = False


class Format(NamedTuple):
    """A file format: whether a file is of it, how it is read, and whether it translates."""

    name: str
    matches: Callable[[Content], bool]
    build: Callable[[Content, Path], Contents]
    translates: bool = False


def find(content: Content, path: Path) -> Contents:
    """Return what a file of another program holds.

    A state_dict that is nested, under keys such as `state_dict`, `netG` or `params_ema`, is found. Of several
    generators the averaged one is taken, which has `ema` in its name.

    Raises:
        CheckpointError: the format is unknown, the weights are not complete, or there are several generators.
    """
    tensors = _flat(content)
    for form in FORMATS if tensors.keys() == content.keys() else ():
        if form.matches(content):
            return form.build(content, path)
    nested = _nested_generators(tensors)
    averaged = [name for name in nested if "ema" in name.lower()]
    chosen = averaged if len(averaged) == 1 else list(nested)
    if len(chosen) > 1:
        raise CheckpointError(f"{path} holds several generators, {', '.join(chosen)}; save one of them as its own file")
    if chosen:
        form, weights = nested[chosen[0]]
        return form.build(weights, path)
    known = ", ".join(form.name for form in FORMATS)
    names = f" (its weights are {', '.join(list(tensors)[:3])}, …)" if tensors else ""
    raise CheckpointError(
        f"{path} holds no generator of a known kind{names}; expected a checkpoint of a run, or {known}"
    )


def _flat(content: Mapping[Any, Any], prefix: str = "") -> dict[str, Tensor]:
    """The tensors of nested dictionaries, by the names of their keys joined by dots."""
    result: dict[str, Tensor] = {}
    for key, value in content.items():
        if isinstance(value, Tensor):
            result[f"{prefix}{key}"] = value
        elif isinstance(value, Mapping):
            result |= _flat(value, f"{prefix}{key}.")
    return result


def _nested_generators(tensors: Mapping[str, Tensor]) -> dict[str, tuple[Format, dict[str, Tensor]]]:
    """The generators whose names have a prefix of one to three words, the shortest that there are, by this prefix."""
    for words in (1, 2, 3):
        groups: dict[str, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            first, *rest = key.split(".", words)
            if len(rest) == words:
                groups.setdefault(".".join([first, *rest[:-1]]), {})[rest[-1]] = value
        found = {
            prefix: (form, weights)
            for prefix, weights in groups.items()
            for form in FORMATS
            if form.translates and form.matches(weights)
        }
        if found:
            return found
    return {}


def find_in_folder(folder: Path) -> Contents | None:
    """Return what a folder of the original CycleGAN, CUT or DCLGAN holds, such as `latest_net_G_A.pth`; else None.

    Without files of `latest`, those of the last epoch count, such as `200_net_G_A.pth`.

    Raises:
        CheckpointError: one of the other files is missing, or a file is damaged or of another kind.
    """
    epochs = {path.name.partition("_net_")[0] for path in folder.glob("*_net_G*.pth")}
    numbers = sorted((epoch for epoch in epochs if epoch.isdecimal()), key=int)
    if not epochs & {"latest", *numbers}:
        return None
    epoch = "latest" if "latest" in epochs else numbers[-1]

    def files(name: str) -> list[Path]:
        return [folder / f"{epoch}_net_{theirs}.pth" for theirs in METHODS[name].networks.values()]

    begun = [name for name in METHODS if files(name)[0].is_file()]
    if not begun:
        return None
    complete = [name for name in begun if all(path.is_file() for path in files(name))]
    task = max(complete or begun[:1], key=lambda name: len(files(name)))  # DCLGAN has the files of CycleGAN, and more
    settings, networks = read_official(folder, epoch, task)
    weights = {f"{name}.{key}": value for name, network in networks.items() for key, value in network.items()}
    return Contents(task=task, settings=settings, weights=weights)


def _is_generator(content: Content) -> bool:
    return isinstance(read_shape(content, "generator"), GeneratorShape)


def _official_generator(content: Content, path: Path) -> Contents:
    shape = read_shape(content, "generator")
    assert isinstance(shape, GeneratorShape)
    weights = unwrapped(content)
    norm = "none" if batch_norms(weights) else "instance"
    if norm == "none":
        weights = without_batch_norms(weights, build(shape, path))
    weights = check_weights(shape, cleaned(weights), path)
    settings = {
        "generator": shape.name,
        "depth": shape.depth,
        "in_channels": shape.in_channels,
        "out_channels": shape.out_channels,
        "ngf": shape.ngf,
        "dropout": shape.dropout,
        "resample": shape.resample,
        "norm": norm,
    }
    return Contents(
        task="GeneratorOnly",
        settings=settings,
        weights={f"generator.{key}": value for key, value in weights.items()},
    )


def _is_discriminator(content: Content) -> bool:
    return read_shape(content, "discriminator") is not None


def _discriminator(content: Content, path: Path) -> Contents:
    raise CheckpointError(
        f"{path} holds a discriminator; expected a generator file of the original implementation such as "
        "latest_net_G_A.pth, or a checkpoint of a run"
    )


def _is_patch_mlp(content: Content) -> bool:
    return read_shape(content, "patch MLP") is not None


def _patch_mlp(content: Content, path: Path) -> Contents:
    raise CheckpointError(
        f"{path} holds the heads of a contrastive loss; expected the generator beside it, such as latest_net_G.pth, "
        "or a checkpoint of a run"
    )


def _fast_neural_style(content: Content, path: Path) -> Contents:
    network = read_example(content, path)
    settings = {"width": network.first.conv.out_channels, "upsample": network.upsample, "output": network.output}
    return Contents(
        task="Johnson",
        settings=settings,
        weights={f"transform.{key}": value for key, value in network.state_dict().items()},
    )


def _is_decoder(content: Content) -> bool:
    return "1.weight" in content and content["1.weight"].ndim == 4


def _decoder(content: Content, path: Path) -> Contents:
    raise CheckpointError(
        f"{path} holds a decoder or a VGG alone; name decoders in --model.decoders and the VGG in --model.weights, "
        "as --config wct shows"
    )


FORMATS = (
    Format("a file of PyTorch's fast_neural_style example", is_example, _fast_neural_style, translates=True),
    Format(
        "a generator file of the original CycleGAN or CUT such as latest_net_G_A.pth or latest_net_G.pth",
        _is_generator,
        _official_generator,
        translates=True,
    ),
    Format("a discriminator file of these", _is_discriminator, _discriminator),
    Format("a patch MLP of the original CUT", _is_patch_mlp, _patch_mlp),
    Format("a decoder of WCT", _is_decoder, _decoder),
)
"""The formats, in the order in which they are tried."""
