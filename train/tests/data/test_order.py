"""The order of examples: every one in each epoch, by seed and epoch alone."""

import pytest
from refiners_train.data.data_error import DataError
from refiners_train.data.example import Example
from refiners_train.data.order import batches, length
from refiners_train.data.prior import WithPrior


class Sized:
    """Examples whose group is their size."""

    def __init__(self, *sizes: int) -> None:
        self.sizes = [size for size, count in enumerate(sizes) for _ in range(count)]

    fingerprint = "sizes"

    def __len__(self) -> int:
        return len(self.sizes)

    def group(self, index: int) -> int:
        return self.sizes[index]

    def example(self, index: int, epoch: int) -> Example:
        return Example(f"{self.sizes[index]} {index}")


@pytest.mark.parametrize("epoch", [0, 3])
def test_buckets_of_1_5_and_7_in_batches_of_4_take_five_steps_and_miss_nothing(epoch):
    source = Sized(1, 5, 7)
    order = batches(source, 4, seed=5, epoch=epoch)
    assert sorted(index for batch in order for index in batch) == list(range(13))
    assert sorted(map(len, order)) == [1, 1, 3, 4, 4]
    assert all(len({source.group(index) for index in batch}) == 1 for batch in order)
    assert length(source, 4) == len(order) == 5


def test_the_order_depends_on_seed_and_epoch_alone():
    first = batches(range(50), 4, seed=1, epoch=2)
    assert first == batches(range(50), 4, seed=1, epoch=2)
    assert first != batches(range(50), 4, seed=1, epoch=3)
    assert first != batches(range(50), 4, seed=2, epoch=2)


def test_every_batch_holds_as_many_prior_examples_of_the_same_size():
    source = WithPrior(Sized(3, 4), Sized(2, 1))
    order = batches(source, 2, seed=0, epoch=0)
    for batch in order:
        taught, priors = batch[: len(batch) // 2], batch[len(batch) // 2 :]
        assert set(taught) <= set(source.taught)
        assert set(priors) <= set(source.priors)
        assert len({source.group(index) for index in batch}) == 1
    seen = [index for batch in order for index in batch]
    assert sorted(index for index in seen if index in source.taught) == list(source.taught)
    assert set(source.priors) <= set(seen)
    assert source.example(8, 0) == Example("0 1", is_prior=True)


def test_a_size_without_prior_examples_is_refused():
    with pytest.raises(DataError, match="no prior picture has the size 1"):
        batches(WithPrior(Sized(3, 4), Sized(2)), 2, seed=0, epoch=0)


def test_a_source_without_examples_is_refused():
    with pytest.raises(DataError, match="no examples"):
        batches(range(0), 2, seed=0, epoch=0)
