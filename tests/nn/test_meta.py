"""Shapes that were derived before are those that torch would derive again."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from mmsparsedit.nn.meta import KnownShapes, on_meta
from mmsparsedit.registry import MODELS

from accelerated import NETWORKS


class Operations(TorchDispatchMode):
    """What reaches torch, with the shapes, strides and dtypes that came out."""

    def __init__(self):
        super().__init__()
        self.made = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **kwargs or {})
        kinds = [
            (o.shape, o.stride(), o.dtype, o.device) for o in torch.utils._pytree.tree_leaves(out)
        ]
        self.made.append((func, kinds))
        return out


@pytest.mark.parametrize('kind', list(NETWORKS))
def test_every_operation_of_a_network_makes_the_same_shapes(kind):
    network = on_meta(MODELS.build(NETWORKS[kind])).eval()
    inputs = network.example_inputs(2, 'meta')
    with torch.no_grad(), Operations() as plain:
        network(**inputs)
    with torch.no_grad(), Operations() as counted, KnownShapes():
        network(**inputs)
    with torch.no_grad(), KnownShapes(), Operations() as known:
        network(**inputs)
    assert known.made == plain.made
    derived = [func for func, _ in counted.made if func is not torch.ops.aten.empty_strided.default]
    assert len(derived) < len(plain.made)  # the rest was known


def test_other_arguments_are_other_operations():
    x = torch.zeros(2, 3, 4, device='meta')
    with KnownShapes():
        assert [x.sum(d).shape for d in (0, 1, [0, 1], [0])] == [(3, 4), (2, 4), (4,), (3, 4)]
        assert x.sum(0, keepdim=True).shape == (1, 3, 4)
        assert x.sum(1, keepdim=False).shape == x.sum(1).shape == (2, 4)
        assert torch.cat([x, x], 1).shape == (2, 6, 4) and torch.cat([x], 1).shape == (2, 3, 4)
        assert (x.half() + x.half()).dtype == torch.float16 and (x + x).dtype == torch.float32
        assert [part.shape for part in x.topk(2)] == [(2, 3, 2)] * 2


def test_new_tensors_each_time_and_changes_in_place():
    x = torch.zeros(2, 3, device='meta')
    with KnownShapes():
        first, second = x + 1, x + 1
        assert first is not second and first.mul_(2) is first
        assert first.t().shape == (3, 2)


def test_numbers_are_never_guessed():
    """Tensors of another device are computed: their values decide."""
    x, here = torch.arange(4.0), torch.tensor([True, False, True, False])
    with KnownShapes():
        assert torch.equal(x + 1, torch.tensor([1.0, 2, 3, 4]))
        assert torch.equal((x + 1)[here], torch.tensor([1.0, 3]))
        assert (x + 1)[~here].shape == (2,) and x[here & (x > 1)].shape == (1,)
        torch.manual_seed(0)
        assert not torch.equal(torch.rand(3), torch.rand(3))
