"""The order of the data in training, for any number of processes and from any place."""

from mmsparsedit.datasets import SeekableSampler


def stream(size, count, rank=0, world=1, position=0, **options):
    sampler = SeekableSampler(range(size), seed=3, **options)
    sampler.rank, sampler.world = rank, world
    sampler.seek(position)
    order = iter(sampler)
    return [next(order) for _ in range(count)]


def test_each_sample_once_per_epoch_for_any_number_of_ranks():
    whole = stream(10, 40)
    for epoch in range(4):
        assert sorted(whole[10 * epoch : 10 * epoch + 10]) == list(range(10))
    assert whole[:10] != whole[10:20]
    for world in (2, 3, 4):
        dealt = [stream(10, 12, rank, world) for rank in range(world)]
        together = [dealt[i % world][i // world] for i in range(12 * world)]
        assert together == stream(10, 12 * world)


def test_seeking_is_reading_on():
    assert stream(1000, 50, 1, 3, position=70) == stream(1000, 120, 1, 3)[70:]
    # far into training: no replay
    assert len(stream(1_281_167, 4, 0, 8, position=400_000 * 32)) == 4
