"""Stop signals in training: all processes stop at the same step."""

import pytorch_lightning as pl

from cyclestyle.signals import StopSignals

AGREE_EVERY = 10  # calls between two reductions over all processes on a GPU, each of which synchronises the device


class TrainingSignals(StopSignals):
    """Stores a stop signal until all processes can stop at the same step."""

    def __init__(self) -> None:
        super().__init__()
        self._calls = 0

    @staticmethod
    def take_over(trainer: pl.Trainer) -> None:
        """Keep Lightning from installing handlers of its own, which is to be called in `setup`.

        Its handler of SIGTERM communicates with the other processes while they may be in another communication, and
        then they wait for each other for ever. Until `install` is called, a signal ends the process at once.
        """
        trainer._signal_connector.register_signal_handlers = lambda: None  # type: ignore[method-assign]

    def agreed(self, trainer: pl.Trainer) -> bool:
        """Return whether any process received a signal.

        With several processes on GPUs this is checked in every `AGREE_EVERY`th call, and is False in the others. All
        processes must call it the same number of times.
        """
        if trainer.world_size == 1:
            return self.received is not None
        self._calls += 1
        if trainer.strategy.root_device.type != "cpu" and self._calls % AGREE_EVERY:
            return False
        return trainer.strategy.reduce_boolean_decision(self.received is not None, all=False)
