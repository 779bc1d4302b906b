"""The batches of `predict`: images of equal size, and at least one batch for each process."""

from types import SimpleNamespace

import pytest

from cyclestyle.data.prediction import PredictionImages, plan_prediction


@pytest.mark.parametrize("processes", [1, 2, 7])
def test_every_process_gets_a_batch_and_every_image_is_in_one(samples, tmp_path, processes):
    """The sampler of Lightning raises an error if a process would get no batch."""
    plan = plan_prediction(samples / "testA", tmp_path, batch_size=2, overwrite=False)
    images = PredictionImages(plan)
    images.trainer = SimpleNamespace(world_size=processes)
    batches = list(images.predict_dataloader())
    assert len(batches) == max(processes, len(plan.batches))
    assert all(len(batch["images"]) == len(batch["targets"]) for batch in batches)
    targets = [target for batch in batches for target in batch["targets"]]
    assert sorted(targets) == sorted(str(target) for group in plan.batches for _, target in group)
