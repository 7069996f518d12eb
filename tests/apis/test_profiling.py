"""The profile of a benchmark: kernels are told apart, times are kept, bytes are counted."""

from collections import Counter

import pytest
import torch

from mmsparsedit.apis.profiling import IDLE, _gaps, kind_of, peak_memory, seconds_by_name, shares


@pytest.mark.parametrize(
    'name,kind',
    [
        ('nvjet_tst_192x192_64x4_2x1_v_bz_coopB_bias_TNN', 'matrix products'),
        ('sm90_xmma_gemm_bf16bf16_bf16f32_f32_tn_n_tilesize128x128x64', 'matrix products'),
        ('void cutlass::Kernel2<cutlass_80_wmma_tensorop_bf16_s161616gemm>', 'matrix products'),
        ('aten::addmm', 'matrix products'),
        ('aten::mm', 'matrix products'),
        ('triton_tem_fused_mm_3', 'matrix products'),
        ('void pytorch_flash::flash_fwd_kernel<Flash_fwd_kernel_traits<96, 128, 64>>', 'attention'),
        ('fmha_cutlassF_bf16_aligned_64x128_rf_sm80', 'attention'),
        ('cudnn_generated_fort_native_sdpa_sm90_flash_fprop_wgmma_f16_knob_6', 'attention'),
        ('triton_red_fused_add_mul_native_layer_norm_1', 'norms and elementwise'),
        ('void at::native::vectorized_elementwise_kernel<4, GeluCUDAKernelImpl>', 'norms and el'),
        ('aten::gelu', 'norms and elementwise'),
        ('aten::add_', 'norms and elementwise'),
        ('Memcpy DtoD (Device -> Device)', 'copies'),
        ('void at::native::CatArrayBatchedCopy<float, 4, 64, 64>', 'copies'),
        ('aten::as_strided', 'other'),
    ],
)
def test_kernels_by_their_names(name, kind):
    assert kind_of(name).startswith(kind)


def test_time_is_kept_and_shared():
    found = shares(Counter({'aten::mm': 3.0, 'aten::addmm': 1.0, IDLE: 1.0}), top=1)
    assert found == dict(
        kinds={'matrix products': 0.8, 'idle': 0.2}, kernels=[dict(name='aten::mm', share=0.6)]
    )


def test_gaps_between_overlapping_kernels():
    assert _gaps([(0, 4), (1, 2), (3, 5), (7, 8), (8, 9)]) == 2
    assert _gaps([]) == 0


def test_a_product_is_seen_as_one():
    a = torch.randn(300, 300)
    seconds = seconds_by_name(lambda: a @ a, 'cpu')
    assert seconds['aten::mm'] > 0
    assert next(iter(shares(seconds)['kinds'])) == 'matrix products'


def test_peak_of_memory_counts_what_lives_together():
    def function():
        first = torch.empty(1_000_000)
        second = first.clone()  # 8 MB
        del first
        third = torch.empty(3_000_000)  # 16 MB
        del second, third
        torch.empty(2_000_000)

    assert peak_memory(function, 'cpu') == 16_000_000
