"""Weights of a task that are not trained."""

from collections.abc import Sequence
from fnmatch import fnmatchcase

from torch import nn

from cyclestyle.errors import CycleStyleError


class Freezing:
    """The option `freeze` of every task.

    Args:
        patterns: names of networks, layers or weights, which may have wildcards.

    Attributes:
        names: the parameters that `apply` has frozen.
    """

    def __init__(self, patterns: Sequence[str]) -> None:
        self.patterns = tuple(patterns)
        self.names: frozenset[str] = frozenset()

    def matching(self, module: nn.Module) -> frozenset[str]:
        """Return the names of the parameters that the patterns match.

        Raises:
            CycleStyleError: a pattern matches no trained parameter, or nothing is left to train.
        """
        trained = [name for name, parameter in module.named_parameters() if parameter.requires_grad]
        trained += self.names
        matched: set[str] = set()
        for pattern in self.patterns:
            names = {name for name in trained if fnmatchcase(name, pattern) or fnmatchcase(name, f"{pattern}.*")}
            if not names:
                networks = ", ".join(dict.fromkeys(name.partition(".")[0] for name in trained))
                raise CycleStyleError(
                    f"model.freeze {pattern} matches no trained weights; the networks are {networks}, and their "
                    f"weights have names such as {trained[0]}"
                )
            matched |= names
        if matched and matched == set(trained):
            raise CycleStyleError("model.freeze leaves nothing to train; freeze less")
        return frozenset(matched)

    def apply(self, module: nn.Module) -> None:
        """Freeze the parameters."""
        self.names = self.matching(module)
        for name in self.names:
            module.get_parameter(name).requires_grad_(False)
