"""Which two images each step sees: a pure function of (seed, epoch, rank, position)."""

import random
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch.utils.data import Dataset, DistributedSampler


class Draw(NamedTuple):
    """One pair to load: an index into each domain, and the seed of its crops and flips."""

    index_A: int
    index_B: int
    seed: str


class UnpairedSampler(DistributedSampler[Any]):
    """Draws an epoch of pairs from two domains of unequal size.

    An epoch is as long as the larger domain, each of whose images it visits once; the smaller domain is
    gone through as often as that takes, in a new order each time. The orders of A and B are independent,
    unless `paired` keeps B in step with A. With several ranks the images that do not divide evenly are
    left to another epoch, so that ranks stay in step and no image is used twice.

    Nothing here depends on how many draws were taken before: epoch and position decide. A resumed epoch
    therefore continues exactly, and the number of loader workers changes nothing.

    It is a `DistributedSampler` so that Lightning does not wrap it in one of its own.

    Args:
        size_A: number of images in domain A.
        size_B: number of images in domain B.
        seed: seed of the run.
        paired: draw B in step with A.
        rank: this process.
        num_replicas: number of processes.
        epoch: the epoch to start in.
        start: pairs of that epoch, over all ranks, that are already used.

    Raises:
        ValueError: there are more processes than images.
    """

    def __init__(
        self,
        size_A: int,
        size_B: int,
        *,
        seed: int = 0,
        paired: bool = False,
        rank: int = 0,
        num_replicas: int = 1,
        epoch: int = 0,
        start: int = 0,
    ) -> None:
        length = max(size_A, size_B)
        if length < num_replicas:
            raise ValueError(f"{num_replicas} processes cannot share {length} images")
        super().__init__(_Sized(length), num_replicas=num_replicas, rank=rank, seed=seed, drop_last=True)
        self.sizes = size_A, size_B
        self.paired = paired
        self.epoch = epoch
        self.start = start

    def __len__(self) -> int:
        """Pairs that each rank draws in a whole epoch, wherever this one starts."""
        return max(self.sizes) // self.num_replicas

    def set_epoch(self, epoch: int) -> None:
        """Go on to a later epoch, from its beginning; the epoch that is under way is left alone."""
        if epoch > self.epoch:
            self.epoch, self.start = epoch, 0

    def __iter__(self) -> Iterator[Any]:
        order_A, order_B = self._order("A", self.sizes[0]), self._order("B", self.sizes[1])
        if self.paired:
            order_B = [index % self.sizes[1] for index in order_A]
        for position in range(self.start + self.rank, len(self) * self.num_replicas, self.num_replicas):
            yield Draw(order_A[position], order_B[position], f"{self.seed}/{self.epoch}/{position}")

    def _order(self, domain: str, size: int) -> list[int]:
        """The domain's images for every position of the epoch, shuffled anew each time round."""
        generator = torch.Generator().manual_seed(random.Random(f"{self.seed}/{self.epoch}/{domain}").getrandbits(63))
        order: list[int] = []
        while len(order) < max(self.sizes):
            order += torch.randperm(size, generator=generator).tolist()
        return order


class _Sized(Dataset[Any]):
    """Stands for the data set, of which `DistributedSampler` asks the length alone."""

    def __init__(self, length: int) -> None:
        self._length = length

    def __len__(self) -> int:
        return self._length
