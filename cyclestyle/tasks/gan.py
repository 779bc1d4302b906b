"""What tasks with generators between two domains share: their arguments, networks, translation and files."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

from torch import Tensor, nn

from cyclestyle.errors import CheckpointError
from cyclestyle.networks import ResNetGenerator, UNetGenerator, build_discriminators, build_generator, initialise
from cyclestyle.networks.calls import call_at_any_size
from cyclestyle.networks.discriminators import DiscriminatorName, members
from cyclestyle.networks.generators import GeneratorName
from cyclestyle.networks.initialisation import InitName
from cyclestyle.networks.method import DOMAINS, Direction
from cyclestyle.networks.normalisation import NormName
from cyclestyle.networks.one_pass import OnePass
from cyclestyle.networks.patches import PatchMLP
from cyclestyle.networks.resampling import ResampleName
from cyclestyle.tasks.checks import check_positive
from cyclestyle.tasks.domains import DomainTask
from cyclestyle.weights.official import read_official


class GANTask(DomainTask):
    """A `DomainTask` with a generator for each of its `directions`, and a discriminator for each domain judged.

    The generators are `G_AB` and `G_BA`, the discriminators have the names in `discriminators`. A subclass builds what
    else it trains, and then calls `initialise_networks`.

    Args:
        generator: `resnet9` (256² and larger), `resnet6` (128²), `unet256` or `unet128`.
        discriminator: `basic` (70×70 PatchGAN), `n_layers` (as deep as `n_layers`), `pixel` or `projected` (in frozen
            features); or a list of these, whose losses are added.
        channels_A: channels of domain A's images, at least 1.
        channels_B: channels of domain B's images, at least 1.
        ngf: filters of the generators' first layer.
        ndf: filters of the discriminators' first layer.
        n_layers: layers of the `n_layers` discriminator.
        depth: residual blocks of a ResNet or levels of a U-Net, instead of those in the generator's name.
        resample: `transpose`; for a ResNet also `resize` (no checkerboards) or `blur` (antialiased generators and
            discriminators).
        norm: `instance`; or `none`, for generators that begin with `--init_from` weights into which norms are folded.
        residual: above 0, the generators learn the change of an image instead of the result, see `build_generator`.
        comb_filter: remove the checkerboard of upsampling from translations; not in training.
        dropout: dropout in the generators' blocks.
        init: how weights are drawn: `normal`, `xavier`, `kaiming` or `orthogonal`.
        init_gain: standard deviation of `normal`, scale of `xavier` and `orthogonal`.
        checkpoint_activations: recompute the generators' activations in the backward pass: less memory, more time.
        options: those of every `DomainTask`; of every `AdversarialTask`, such as `diff_augment`; and of every `Task`,
            such as `lr_policy`.

    Raises:
        ValueError: a value is out of its range.
    """

    G_AB: ResNetGenerator | UNetGenerator
    G_BA: ResNetGenerator | UNetGenerator
    D_A: nn.Module
    D_B: nn.Module
    architecture: ClassVar[tuple[str, ...]] = (
        *("spectral_norm", "generator", "depth", "resample", "norm", "residual", "ngf", "dropout"),
        *("channels_A", "channels_B", "discriminator", "ndf", "n_layers"),
    )

    def __init__(
        self,
        *,
        generator: GeneratorName = "resnet9",
        discriminator: DiscriminatorName | list[DiscriminatorName] = "basic",
        channels_A: int = 3,
        channels_B: int = 3,
        ngf: int = 64,
        ndf: int = 64,
        n_layers: int = 3,
        depth: int | None = None,
        resample: ResampleName = "transpose",
        norm: NormName = "instance",
        residual: float | bool = 0.0,
        comb_filter: bool = False,
        dropout: bool = False,
        init: InitName = "normal",
        init_gain: float = 0.02,
        checkpoint_activations: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        check_positive(ngf=ngf, ndf=ndf, channels_A=channels_A, channels_B=channels_B)
        self.save_hyperparameters()  # with the arguments of the subclasses
        self.channels = {"A": channels_A, "B": channels_B}
        self.init: InitName = init
        self.init_gain = init_gain
        for direction in self.directions:
            source, target = DOMAINS[direction]
            network = build_generator(
                generator,
                in_channels=self.channels[source],
                out_channels=self.channels[target],
                ngf=ngf,
                dropout=dropout,
                depth=depth,
                resample=resample,
                norm=norm,
                residual=residual,
                comb_filter=comb_filter,
                checkpoint_activations=checkpoint_activations,
            )
            self.add_module(f"G_{source}{target}", network)
        for name, domain in self.discriminators.items():
            judge = build_discriminators(
                discriminator,
                in_channels=self.channels[domain],
                ndf=ndf,
                n_layers=n_layers,
                resample=resample,
                projected_size=self.projected_size,
            )
            self.add_module(name, judge)

    def initialise_networks(self, *others: nn.Module) -> None:
        """Draw the weights of generators and discriminators, and of other networks, such as heads of features."""
        generators = [self.generator(direction) for direction in self.directions]
        judges = [one for name in self.discriminators for one in members(self.get_submodule(name))]
        self.networks = (*generators, *judges)
        for network in (*self.networks, *others):
            initialise(network, self.init, self.init_gain)
        self.normalise_discriminators()

    def generator(self, direction: Direction) -> nn.Module:
        """Return the generator of a direction; where there is one direction, its generator."""
        source, target = DOMAINS[direction if direction in self.directions else self.directions[0]]
        return self.get_submodule(f"G_{source}{target}")

    def translate(self, images: Tensor, direction: Direction) -> Tensor:
        """Translate images of any height and width."""
        return call_at_any_size(self.generator(direction), images.contiguous(memory_format=self.speed.memory_format))

    def exported(self, direction: Direction) -> OnePass:
        """Return the generator of the direction."""
        return OnePass.of(self.generator(direction), self.in_channels(direction))

    def in_channels(self, direction: Direction) -> int:
        """Return the channels of the source domain."""
        return self.channels[DOMAINS[direction][0]]

    @classmethod
    def load_official(cls, folder: str | Path, *, epoch: str = "latest", **changes: Any) -> Self:
        """Build a task from the files of its original implementation.

        The networks are inferred from the shapes of the weights. Losses and schedule are those in the `train_opt.txt`
        of the original if it is in the same folder, else the defaults. The optimiser starts without state, because the
        original does not store it.

        Args:
            folder: contains the networks of a run, such as `<epoch>_net_G_A.pth`; see `cyclestyle.weights.official`.
            epoch: `latest`, or an epoch's number.
            changes: constructor arguments that replace those of the files, such as `nce_features` of CUT, which the
                files do not name.

        Raises:
            CheckpointError: a file is missing, damaged, or not such a network, the networks do not fit each other, or
                heads are not those of `nce_features`.
            ValueError: a change is out of its range, or asks for spectral norm or residual generators.
        """
        _refuse_unofficial(changes)
        settings, weights = read_official(Path(folder), epoch, cls.__name__)
        task = cls(**{**settings, **changes})
        for name, network in weights.items():
            ours = task.get_submodule(name)
            if isinstance(ours, PatchMLP):
                _check_heads(ours, network, Path(folder))
            ours.load_state_dict(network)
        return task


def _refuse_unofficial(changes: Mapping[str, Any]) -> None:
    """Refuse to read files of an original implementation into networks that it does not have."""
    for name, value, reason in (
        ("spectral_norm", "false", "whose discriminators have none"),
        ("residual", "0", "whose generators are not"),
    ):
        if changes.get(name):
            raise ValueError(f"{name} must be {value} for files of the original implementation, {reason}")


def _check_heads(ours: nn.Module, theirs: Mapping[str, Tensor], folder: Path) -> None:
    def channels(weights: Mapping[str, Tensor]) -> list[int]:
        return [value.shape[1] for key, value in weights.items() if key.endswith(".0.weight")]

    if channels(ours.state_dict()) != channels(theirs):
        raise CheckpointError(
            f"the heads in {folder} embed features with {channels(theirs)} channels, but those of nce_features have "
            f"{channels(ours.state_dict())}; name the features that the heads were trained on in nce_features"
        )
