import io

import pytest
import torch

from cyclestyle.tasks.image_pool import ImagePool


def make_images(start, count):
    return torch.arange(start, start + count, dtype=torch.float32).reshape(-1, 1, 1, 1)


def test_returns_what_it_is_given_until_full():
    pool = ImagePool(4)
    assert torch.equal(pool.query(make_images(0, 4)), make_images(0, 4))
    assert len(pool) == 4


def test_returns_half_from_history_once_full():
    pool = ImagePool(5)
    pool.query(make_images(0, 5))
    given = make_images(5, 400)
    returned = pool.query(given)
    new = (returned == given).float().mean()
    assert 0.4 < new < 0.6
    old = returned[returned != given]
    assert len(set(old.tolist())) == len(old)  # a stored image leaves the pool when it is returned


def test_size_0_is_off():
    images = make_images(0, 3)
    assert ImagePool(0).query(images) is images


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_validation_leaves_the_history_alone(mode):
    pool = ImagePool(3)
    pool.query(make_images(0, 2))
    before = pool.state_dict()
    with mode():
        held_out = make_images(5, 4)
        assert pool.query(held_out) is held_out
    after = pool.state_dict()
    assert torch.equal(after["images"], before["images"])
    assert after["random"] == before["random"]


def test_no_gradient_flows_into_history():
    images = make_images(0, 2).requires_grad_()
    assert not ImagePool(2).query(images).requires_grad


def test_state_continues_exactly_and_loads_without_running_code():
    pool = ImagePool(3, seed=7)
    pool.query(make_images(0, 10))
    buffer = io.BytesIO()
    torch.save(pool.state_dict(), buffer)
    buffer.seek(0)
    other = ImagePool(3, seed=99)
    other.load_state_dict(torch.load(buffer, weights_only=True))
    assert torch.equal(pool.query(make_images(10, 50)), other.query(make_images(10, 50)))


def test_seeds_differ():
    def run(seed):
        pool = ImagePool(3, seed=seed)
        return pool.query(make_images(0, 60)).flatten().tolist()

    assert run(0) == run(0)
    assert run(0) != run(1)


def test_images_of_another_size_start_a_new_history():
    pool = ImagePool(3)
    pool.query(torch.zeros(3, 3, 8, 8))
    assert pool.query(torch.ones(1, 3, 4, 8)).shape == (1, 3, 4, 8)
    assert len(pool) == 1


def test_negative_size():
    with pytest.raises(ValueError, match="pool_size must be 0 or more, got -1"):
        ImagePool(-1)
