"""Sampler of unpaired images, a pure function of (seed, epoch, rank, position)."""

import random
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch.utils.data import Dataset, DistributedSampler


class Draw(NamedTuple):
    """One pair: an index for each domain, and the seed of the crops and flips."""

    index_A: int
    index_B: int
    seed: str


class UnpairedSampler(DistributedSampler[Any]):
    """Draws pairs of images from two domains whose sizes may differ.

    An epoch has as many pairs as the larger domain has images, and uses each of them once. The smaller domain is
    repeated, with a new order in each repetition. The orders of A and B are independent unless `paired` is set. With
    several ranks, the pairs that do not divide evenly are dropped, so that all ranks draw the same number of pairs and
    no image is used twice.

    A draw depends only on the seed, the epoch and the position, not on earlier draws. A resumed epoch therefore
    continues exactly, and the number of loader workers has no effect.

    The class derives from `DistributedSampler` so that Lightning does not wrap it in another distributed sampler.

    Args:
        size_A: number of images in domain A.
        size_B: number of images in domain B.
        seed: seed of the run.
        paired: use the same order for B as for A.
        rank: rank of this process.
        num_replicas: number of processes.
        epoch: first epoch.
        start: number of pairs of that epoch, over all ranks, that are already used.

    Raises:
        ValueError: there are more processes than pairs in an epoch.
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
        """Return the number of pairs of each rank in a complete epoch, also if the current epoch was resumed."""
        return max(self.sizes) // self.num_replicas

    def set_epoch(self, epoch: int) -> None:
        """Start a later epoch from its first pair; for the current or an earlier epoch nothing changes."""
        if epoch > self.epoch:
            self.epoch, self.start = epoch, 0

    def __iter__(self) -> Iterator[Any]:
        order_A, order_B = self._order("A", self.sizes[0]), self._order("B", self.sizes[1])
        if self.paired:
            order_B = [index % self.sizes[1] for index in order_A]
        for position in range(self.start + self.rank, len(self) * self.num_replicas, self.num_replicas):
            yield Draw(order_A[position], order_B[position], f"{self.seed}/{self.epoch}/{position}")

    def _order(self, domain: str, size: int) -> list[int]:
        """Return the index of the image at each position of the epoch; each repetition is shuffled separately."""
        generator = torch.Generator().manual_seed(random.Random(f"{self.seed}/{self.epoch}/{domain}").getrandbits(63))
        order: list[int] = []
        while len(order) < max(self.sizes):
            order += torch.randperm(size, generator=generator).tolist()
        return order


class _Sized(Dataset[Any]):
    """Placeholder dataset: `DistributedSampler` needs only the length."""

    def __init__(self, length: int) -> None:
        self._length = length

    def __len__(self) -> int:
        return self._length
