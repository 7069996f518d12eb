"""Requests: which samples a test asks for."""

import pytest

from mmsparsedit.datasets import SampleRequests


def test_requests_are_reproducible_and_not_sorted():
    first = SampleRequests(200, num_classes=10, seed=1)
    labels = [first[i]['label'] for i in range(200)]
    assert labels == [SampleRequests(200, 10, seed=1)[i]['label'] for i in range(200)]
    assert labels != sorted(labels) and set(labels) == set(range(10))
    assert len({first[i]['seed'] for i in range(200)}) == 200
    assert first[3]['seed'] != SampleRequests(200, 10, seed=2)[3]['seed']
    assert [SampleRequests(5, 10, labels=[7, 2])[i]['label'] for i in range(5)] == [7, 2, 7, 2, 7]
    assert 'label' not in SampleRequests(2)[0]
    with pytest.raises(ValueError, match='expected 0 to 9'):
        SampleRequests(2, 10, labels=[10])
