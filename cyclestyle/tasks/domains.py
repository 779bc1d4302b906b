"""What a GAN task knows of its two domains beside their images."""

from typing import Any

from cyclestyle.networks.method import stored_ranges
from cyclestyle.tasks.adversary import AdversarialTask


class DomainTask(AdversarialTask):
    """An `AdversarialTask` on two domains, which the datamodule may say more about.

    Args:
        ranges: the lowest and the highest value of the domains `A` and `B` where these are no colours; null: those that
            the datamodule finds, which checkpoints store.
        options: those of every `AdversarialTask`, such as `diff_augment`, and of every `Task`, such as `lr_policy`.
    """

    filled_in = ("ranges",)

    def __init__(self, *, ranges: dict[str, list[float]] | None = None, **options: Any) -> None:
        super().__init__(**options)
        self.ranges = stored_ranges(ranges)

    def on_train_start(self) -> None:
        """Store the ranges of the domains, with which translations are made, among the constructor arguments."""
        super().on_train_start()
        found = getattr(self.trainer.datamodule, "ranges", None)  # type: ignore[attr-defined]
        if found is not None:
            self.hparams["ranges"], self.ranges = found or None, stored_ranges(found)
