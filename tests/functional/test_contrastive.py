import math

import pytest
import torch

from cyclestyle.functional.contrastive import draw_patches, l2_normalise, patch_nce, take_patches


def unit_vectors(*shape, seed=0):
    return l2_normalise(torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64))


def test_it_is_the_formula_of_the_paper():
    queries, keys = unit_vectors(2, 5, 8), unit_vectors(2, 5, 8, seed=1)
    losses = patch_nce(queries, keys, temperature=0.3)
    for image in range(2):
        for place in range(5):
            similar = [math.exp(queries[image, place] @ keys[image, other] / 0.3) for other in range(5)]
            assert losses[image, place].item() == pytest.approx(-math.log(similar[place] / sum(similar)), rel=1e-12)


def test_negatives_over_the_batch():
    queries, keys = unit_vectors(2, 5, 8), unit_vectors(2, 5, 8, seed=1)
    joined = patch_nce(queries.reshape(1, 10, 8), keys.reshape(1, 10, 8))
    assert torch.equal(patch_nce(queries, keys, negatives="batch").flatten(), joined.flatten())
    assert (patch_nce(queries, keys, negatives="batch") > patch_nce(queries, keys)).all()


def test_equal_keys_are_at_the_level_of_chance():
    same = unit_vectors(1, 1, 8).expand(2, 16, 8)
    assert torch.allclose(patch_nce(unit_vectors(2, 16, 8), same), torch.tensor(math.log(16), dtype=torch.float64))


def test_keys_get_no_gradient():
    queries, keys = unit_vectors(1, 4, 8).requires_grad_(), unit_vectors(1, 4, 8, seed=1).requires_grad_()
    patch_nce(queries, keys).mean().backward()
    assert keys.grad is None
    assert queries.grad.abs().sum() > 0


def test_half_precision_is_computed_in_float32():
    queries, keys = unit_vectors(1, 64, 16).bfloat16(), unit_vectors(1, 64, 16, seed=1).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = patch_nce(queries, keys)
    assert losses.dtype == torch.float32
    assert torch.allclose(losses, patch_nce(queries.float(), keys.float()))


def test_small_vectors_are_shortened_by_the_epsilon():
    assert l2_normalise(torch.tensor([1e-7, 0.0])).tolist() == pytest.approx([0.5, 0.0])
    assert l2_normalise(torch.zeros(3)).tolist() == [0, 0, 0]
    assert l2_normalise(torch.tensor([3e-5, 4e-5]).half()).norm().item() == pytest.approx(1, rel=0.01)


def test_patches_are_drawn_without_replacement():
    torch.manual_seed(0)
    first, second = draw_patches(100, 20), draw_patches(100, 20)
    assert len(set(first.tolist())) == 20
    assert not torch.equal(first, second)
    assert sorted(draw_patches(9, 20).tolist()) == sorted(draw_patches(9, 0).tolist()) == list(range(9))


def test_own_generators_leave_the_global_one_alone():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    draws = [draw_patches(100, 5, generator=torch.Generator().manual_seed(3)) for _ in range(2)]
    assert torch.equal(*draws)
    assert torch.equal(torch.get_rng_state(), before)


def test_places_count_row_by_row():
    features = torch.arange(2 * 3 * 4 * 5.0).view(2, 3, 4, 5)
    taken = take_patches(features, torch.tensor([0, 7]))
    assert taken.shape == (2, 2, 3)
    assert torch.equal(taken[:, 1], features[:, :, 1, 2])
