"""Tasks that update their discriminators first, inside the batch, as CUT does."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from cyclestyle.tasks.base import Task, total


class DiscriminatorsFirst(Task):
    """A `Task` whose `losses` calls `update_discriminators`, so that the other losses see updated discriminators.

    It comes before other bases: `class CUT(DiscriminatorsFirst, AdversarialTask)`.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._discriminator_gradients: list[Tensor] | None = None  # accumulated since the last update

    def update_discriminators(self, losses: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Update the discriminators now, inside the batch, before the other losses are computed (CUT does).

        `losses` calls this once a batch, with the losses of all discriminators on detached fakes. Their gradients are
        averaged over the processes, clipped, accumulated and scaled like any others. The step axis and the schedule
        count the batch once. Outside of training nothing is updated. While gradients accumulate, the update comes with
        the last batch, so that the other losses of earlier batches see the discriminators as they were.

        Returns:
            The losses, detached, for the result of `losses`.
        """
        trained = self._trained_discriminators()
        if trained and self._trainer is not None and self.trainer.training and torch.is_grad_enabled():
            self._accumulate(total(losses))
            last = (self.trainer.fit_loop.batch_idx + 1) % self.trainer.accumulate_grad_batches == 0
            if last or self.trainer.is_last_batch:
                self._step_discriminators()
        return {name: value.detach() for name, value in losses.items()}

    def _accumulate(self, loss: Tensor) -> None:
        scaled = self.trainer.precision_plugin.pre_backward(loss / self.trainer.accumulate_grad_batches, self)
        gradients = torch.autograd.grad(scaled, self._trained_discriminators())
        kept = self._discriminator_gradients
        self._discriminator_gradients = (
            list(gradients) if kept is None else [a + b for a, b in zip(kept, gradients, strict=True)]
        )

    def _step_discriminators(self) -> None:
        """Step the optimiser while nothing but the discriminators has gradients; it leaves the others alone."""
        parameters, gradients = self._trained_discriminators(), self._discriminator_gradients
        assert gradients is not None
        self._discriminator_gradients = None
        if self.trainer.world_size > 1:  # in one call: Lightning's `reduce` makes all processes wait at a barrier
            mean = torch.cat([gradient.flatten() for gradient in gradients])
            torch.distributed.all_reduce(mean)
            mean /= self.trainer.world_size
            parts = torch.split(mean, [gradient.numel() for gradient in gradients])
            gradients = [part.view_as(gradient) for part, gradient in zip(parts, gradients, strict=True)]
        optimizer = self.trainer.optimizers[0]
        accumulates = self.trainer.accumulate_grad_batches > 1
        scaler = getattr(self.trainer.precision_plugin, "scaler", None) if accumulates else None
        before = 1.0 if scaler is None else scaler.get_scale()
        with without_gradients(optimizer) as others:
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.grad = gradient
            self.trainer.strategy.optimizer_step(optimizer, lambda: True)
        if scaler is not None:  # the step may have changed the scale that those of the earlier batches have
            torch._foreach_mul_(others, scaler.get_scale() / before)

    def _discriminator_parameters(self) -> list[nn.Parameter]:
        return [parameter for name in self.discriminators for parameter in self.get_submodule(name).parameters()]

    def _trained_discriminators(self) -> list[nn.Parameter]:
        return [parameter for parameter in self._discriminator_parameters() if parameter.requires_grad]

    def setup(self, stage: str) -> None:
        """Keep DDP from gradients that are reduced here."""
        super().setup(stage)
        own = {id(parameter) for parameter in self._discriminator_parameters()}
        names = [name for name, parameter in self.named_parameters() if id(parameter) in own]
        ignore = nn.parallel.DistributedDataParallel._set_params_and_buffers_to_ignore_for_model
        ignore(self, names)  # type: ignore[no-untyped-call]

    def on_train_start(self) -> None:
        """Give all processes the same discriminators, which DDP leaves out."""
        super().on_train_start()
        if self.trainer.world_size > 1:
            for parameter in self._discriminator_parameters():
                torch.distributed.broadcast(parameter.data, 0)

    def on_after_backward(self) -> None:
        """Drop gradients that the other losses have sent into discriminators that are updated by themselves."""
        for parameter in self._discriminator_parameters():
            parameter.grad = None


@contextmanager
def without_gradients(optimizer: torch.optim.Optimizer) -> Iterator[list[Tensor]]:
    """Remove the gradients of an optimiser's parameters, yield them, and put them back at the end."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    gradients = [parameter.grad for parameter in parameters]
    for parameter in parameters:
        parameter.grad = None
    try:
        yield [gradient for gradient in gradients if gradient is not None]
    finally:
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
