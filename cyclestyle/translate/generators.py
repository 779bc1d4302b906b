"""Finding a generator in a checkpoint of a run, or in a file of another implementation."""

from pathlib import Path
from typing import Any, Literal

from cyclestyle.errors import CheckpointError
from cyclestyle.networks import ResNetGenerator, UNetGenerator
from cyclestyle.networks.transform import TransformNetwork
from cyclestyle.weights.checkpoints import read_checkpoint
from cyclestyle.weights.fast_neural_style import PREFIX, is_example, read_example, read_transform
from cyclestyle.weights.official import GeneratorShape, check_weights, cleaned, read_shape

Direction = Literal["AtoB", "BtoA"]
Averaging = Literal["auto", "ema", "raw"]
Generator = ResNetGenerator | UNetGenerator | TransformNetwork


def load_generator(path: Path, direction: Direction, averaging: Averaging = "auto") -> tuple[Generator, int]:
    """Build a generator from a checkpoint, whose shapes tell its architecture; return it and its input channels.

    A checkpoint of a CycleGAN run holds both directions. A file of the original implementation, such as
    `latest_net_G_A.pth`, holds one generator, whatever `direction` says; so do a checkpoint of a Johnson run and
    a file of PyTorch's fast_neural_style example.

    Args:
        path: the file.
        direction: `AtoB` or `BtoA`.
        averaging: `ema` takes the averaged weights of a run, `raw` those of its last step, and `auto` the
            averaged ones where the run has kept them.

    Raises:
        CheckpointError: the file is none of these, or has no averaged weights.
    """
    checkpoint = read_checkpoint(path)
    if averaging == "ema" and "ema" not in checkpoint:
        raise CheckpointError(f"{path} holds no averaged weights; train with --ema.decay 0.999, or take the raw ones")
    task = checkpoint.get("cyclestyle_task")
    if task == "Johnson":
        return read_transform(_of_run(checkpoint, PREFIX, averaging), path), TransformNetwork.in_channels
    if is_example(checkpoint):
        return read_example(checkpoint, path), TransformNetwork.in_channels
    prefix = "G_AB." if direction == "AtoB" else "G_BA."
    weights = _of_run(checkpoint, prefix, averaging) if task == "CycleGAN" else checkpoint
    shape = read_shape(weights, "generator")
    if not isinstance(shape, GeneratorShape):
        raise CheckpointError(f"{path} {_what_it_is(checkpoint)}")
    weights = cleaned(weights)
    check_weights(shape, weights, path)
    generator = shape.build()
    generator.load_state_dict(weights)
    return generator, shape.in_channels


def _of_run(checkpoint: dict[str, Any], prefix: str, averaging: Averaging) -> dict[str, Any]:
    """The weights of the network whose names begin with `prefix`."""
    state = checkpoint["state_dict"] if averaging == "raw" else checkpoint.get("ema", checkpoint["state_dict"])
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}


def _what_it_is(checkpoint: dict[str, Any]) -> str:
    if "state_dict" in checkpoint:
        what = checkpoint.get("cyclestyle_task") or "another program"
        found = f"is a checkpoint of {what}"
    elif read_shape(checkpoint, "discriminator") is not None:
        found = "holds a discriminator"
    else:
        found = "holds no generator that is known here"
    return (
        f"{found}; expected a checkpoint written by fitting a CycleGAN or Johnson, or a ResNet or U-Net generator "
        "file of the original implementation such as latest_net_G_A.pth"
    )
