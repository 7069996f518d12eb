"""The kernel of attention: measured once for each shape, the same numbers whichever it is."""

import pytest
import torch
from torch.nn.attention import SDPBackend

from mmsparsedit.nn.attention_kernels import ChosenKernels, Kernel, run_kernel

from accelerated import NETWORKS, SHALLOW, at_each_stage, build

FLASH, MATH = Kernel(SDPBackend.FLASH_ATTENTION), Kernel(SDPBackend.MATH)
IN_KEYS = Kernel(SDPBackend.FLASH_ATTENTION, mask_in_keys=True)
MISSING = Kernel(SDPBackend.CUDNN_ATTENTION)  # of a GPU


def inputs(dtype=torch.float32):
    draw = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 3, n, 16, generator=draw).to(dtype) for n in (5, 7, 7))
    mask = torch.ones(2, 1, 1, 7, dtype=torch.bool)
    mask[1, ..., 4:] = False
    return q, k, v, mask


@pytest.mark.parametrize('dtype,within', [(torch.float32, 1e-6), (torch.bfloat16, 1e-2)])
@pytest.mark.parametrize('kernel', [FLASH, MATH, IN_KEYS])
def test_every_kernel_is_attention(kernel, dtype, within):
    q, k, v, mask = inputs(dtype)
    for m in (None, mask):
        expected = run_kernel(None, *(x.double() for x in (q, k, v)), m)
        found = run_kernel(kernel, q, k, v, m)
        torch.testing.assert_close(found.double(), expected, rtol=within, atol=within)


def test_padding_has_no_part_where_keys_hold_the_mask():
    q, k, v, mask = inputs(torch.bfloat16)
    before = run_kernel(IN_KEYS, q, k, v, mask)
    k[1, :, 4:], v[1, :, 4:] = 1e3, 1e3
    assert torch.equal(run_kernel(IN_KEYS, q, k, v, mask), before)


def test_the_quickest_is_measured_once_and_kept():
    q, k, v, mask = inputs()
    times = iter([3.0, 2.0, 1.0, 3.0, 1.0])  # PyTorch's own, then the candidates that run
    told = []
    chosen = ChosenKernels(
        lambda call: (call(), next(times))[1], (MISSING, FLASH, MATH), (IN_KEYS,), told.append
    )
    assert chosen.of(q, k, v, None) == MATH == chosen.of(q, k, v, None)
    assert chosen.of(q, k, v, mask) == IN_KEYS and len(told) == 2
    with pytest.raises(StopIteration):
        chosen.of(q[:, :, :4], k, v, None)  # another shape


@pytest.mark.slow(4)
@pytest.mark.parametrize(
    'kind,levers', [('dit', dict(compile=dict(backend='eager'))), ('pixart', {})]
)
def test_stages_run_the_kernels_that_were_chosen(kind, levers):
    network = SHALLOW if kind == 'dit' else NETWORKS[kind]
    generator = build(kind, sides=(4,), network=network)
    expected = at_each_stage(generator)
    generator.accelerate(attention='measured', **levers)
    at_each_stage(generator)
    kernels = generator.acceleration._kernels
    assert len(kernels.table) > 1 and set(kernels.table.values()) <= {None, FLASH, IN_KEYS}
    for key in kernels.table:
        kernels.table[key] = IN_KEYS if key[-1] else MATH
    torch._dynamo.reset()
    torch.testing.assert_close(at_each_stage(generator), expected, rtol=1e-4, atol=1e-4)
    count = len(kernels.table)
    at_each_stage(generator, batch=3)
    assert len(kernels.table) > count  # of another batch
    assert all(m.kernels is None for m in generator.network.modules() if hasattr(m, 'kernels'))
