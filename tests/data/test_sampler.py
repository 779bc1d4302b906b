from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cyclestyle.data.sampler import UnpairedSampler

sizes = st.integers(1, 40)


@given(size_A=sizes, size_B=sizes, seed=st.integers(0, 9), epoch=st.integers(0, 5))
def test_each_image_of_the_larger_domain_is_used_once(size_A, size_B, seed, epoch):
    draws = list(UnpairedSampler(size_A, size_B, seed=seed, epoch=epoch))
    assert len(draws) == max(size_A, size_B)
    for indices, size in (([d.index_A for d in draws], size_A), ([d.index_B for d in draws], size_B)):
        counts = Counter(indices)
        assert set(counts) == set(range(size))
        assert max(counts.values()) - min(counts.values()) <= 1
    assert len({draw.seed for draw in draws}) == len(draws)


@given(size_A=st.integers(4, 40), size_B=sizes, ranks=st.integers(1, 4), epoch=st.integers(0, 3))
def test_the_ranks_together_draw_the_epoch_of_a_single_process(size_A, size_B, ranks, epoch):
    whole = list(UnpairedSampler(size_A, size_B, epoch=epoch))
    shares = [list(UnpairedSampler(size_A, size_B, epoch=epoch, rank=r, num_replicas=ranks)) for r in range(ranks)]
    assert len({len(share) for share in shares}) == 1
    interleaved = [draw for group in zip(*shares, strict=True) for draw in group]
    assert interleaved == whole[: len(interleaved)]
    assert len(whole) - len(interleaved) < ranks


@given(size=st.integers(1, 40), start=st.integers(0, 40), epoch=st.integers(0, 3))
def test_a_resumed_epoch_continues_at_its_start_position(size, start, epoch):
    whole = list(UnpairedSampler(size, 7, epoch=epoch))
    resumed = UnpairedSampler(size, 7, epoch=epoch, start=start)
    assert len(resumed) == len(whole)  # Lightning itself subtracts the batches that are done
    assert list(resumed) == whole[start:]
    resumed.set_epoch(epoch)  # Lightning calls set_epoch with the epoch that it resumes
    assert list(resumed) == whole[start:]
    resumed.set_epoch(epoch + 1)
    assert list(resumed) == list(UnpairedSampler(size, 7, epoch=epoch + 1))


def test_orders_differ_by_epoch_seed_and_domain():
    def orders(**settings):
        draws = list(UnpairedSampler(50, 50, **settings))
        return [d.index_A for d in draws], [d.index_B for d in draws]

    first_A, first_B = orders()
    assert first_A != first_B
    assert orders() == (first_A, first_B)
    for other in (orders(epoch=1), orders(seed=1)):
        assert first_A != other[0]
        assert first_B != other[1]


def test_paired_uses_the_same_order_for_both_domains():
    draws = list(UnpairedSampler(9, 9, paired=True))
    assert all(draw.index_A == draw.index_B for draw in draws)
    assert [draw.index_A for draw in draws] != list(range(9))


def test_more_processes_than_images_raise_an_error():
    with pytest.raises(ValueError, match="4 processes cannot share 3 images"):
        UnpairedSampler(3, 2, num_replicas=4)
