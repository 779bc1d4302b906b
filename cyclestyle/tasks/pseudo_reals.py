"""Generated images that a discriminator sees as real, the more of them the more it overfits."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from cyclestyle.functional.adversarial import check_same_size
from cyclestyle.tasks.checks import check_positive
from cyclestyle.tasks.random_state import RankState

EVERY = 4  # batches between two changes of a probability


class PseudoReals(RankState):
    """Adaptive pseudo augmentation (Jiang et al. 2021, *Deceive D*, section 3.2), for each discriminator by itself.

    With the probability p, each real image of a batch is replaced by a generated one, which is still labelled real. p
    starts at 0. Every 4 batches it changes by the images seen in them, relative to `images`: up if r > `target`, else
    down. r is the mean of sign(D(x) − threshold) over the scores of the images shown as real in these batches, over
    all processes: 1 if the discriminator takes all of them for real. p stays in [0, 1], and is the same in every
    process.

    Args:
        names: of the discriminators.
        target: r above which a discriminator counts as overfitted, in (-1, 1).
        images: number of images over which p rises from 0 to 1.

    Raises:
        ValueError: a value is out of its range.
    """

    shared = True

    def __init__(self, names: Sequence[str], *, target: float = 0.6, images: int = 500_000) -> None:
        if not -1 < target < 1:
            raise ValueError(f"apa_target must be between -1 and 1, got {target}")
        check_positive(apa_images=images)
        self.names, self.target, self.images = tuple(names), target, images
        self.probability: dict[str, Tensor] = {}
        self._seen: dict[str, Tensor] = {}  # since the last change: sum of the signs, their number, images
        self._batches: dict[str, int] = {}
        self.reseed(0)

    def mixed(self, name: str, real: Tensor, fake: Tensor) -> Tensor:
        """Return the real images `(N, C, H, W)`, some of them replaced by generated ones.

        Raises:
            DataError: real and generated images differ in size.
        """
        check_same_size(real, fake, "model.apa")
        probability = self.probability[name] = self.probability[name].to(real.device)
        replaced = torch.rand(len(real), device=real.device) < probability
        return torch.where(replaced[:, None, None, None], fake.detach().to(real.dtype), real)

    @torch.no_grad()
    def observe(self, name: str, signs: Tensor, images: int) -> None:
        """Count what a discriminator said of a batch that was shown as real, and change p when it is due.

        Args:
            name: of the discriminator.
            signs: 1 for each score that says *real*, and -1 for the others, of any shape.
            images: number of images in the batch.
        """
        total = signs.float().sum()
        counts = torch.stack([total, torch.full_like(total, signs.numel()), torch.full_like(total, images)])
        seen = self._seen[name] = self._seen[name].to(counts.device) + counts
        self._batches[name] += 1
        if self._batches[name] % EVERY == 0:
            self._change(name, seen)

    def _change(self, name: str, seen: Tensor) -> None:
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.all_reduce(seen)
        step = torch.sign(seen[0] / seen[1] - self.target) * seen[2] / self.images
        self.probability[name] = (self.probability[name].to(seen.device) + step).clamp(0, 1)
        self._seen[name] = torch.zeros_like(seen)

    def reseed(self, seed: int) -> None:
        """Start at p = 0. Nothing is drawn from the seed: draws are those of the global random numbers."""
        self.probability = {name: torch.zeros(()) for name in self.names}
        self._seen = {name: torch.zeros(3) for name in self.names}
        self._batches = dict.fromkeys(self.names, 0)

    def state_dict(self) -> dict[str, Any]:
        """Return p and the counts since its last change, by the name of the discriminator."""
        return {
            name: {
                "probability": self.probability[name].cpu().clone(),
                "seen": self._seen[name].cpu().clone(),
                "batches": self._batches[name],
            }
            for name in self.names
        }

    def load_state_dict(self, state: dict[str, Any], device: torch.device | str = "cpu") -> None:
        """Continue exactly where `state_dict` was called."""
        for name in self.names:
            self.probability[name] = state[name]["probability"].to(device)
            self._seen[name] = state[name]["seen"].to(device)
            self._batches[name] = state[name]["batches"]
