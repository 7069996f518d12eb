"""Multiply-adds of a DiT, dense or sparse, by hand."""

import math


def closed_formula(N, M, C, bottom, sdtms, counts, top, patch_values, out_values):
    """Multiply-adds by hand, the two exact rewrites included."""
    dense_block = 12 * N * C**2 + 2 * N**2 * C + 6 * C**2
    pooling = 2 * C**2 + 8 * N * C**2 + 6 * C**2
    generation = 2 * M * C**2 + 2 * N * C**2 + 2 * M * N * C + 8 * M * C**2 + 6 * C**2
    sparse = 12 * M * C**2 + 2 * M**2 * C + 6 * C**2
    recovery = 2 * N * C**2 + 2 * M * C**2 + 2 * M * N * C + 8 * N * C**2 + 6 * C**2
    recovery += (N + M) * C**2  # W2 on N, W1 on M
    g, s, r, d = counts
    module = g * generation + s * sparse + r * recovery + d * dense_block
    outer = N * patch_values * C + 256 * C + C**2 + 2 * C**2 + N * C * out_values
    return bottom * pooling + sdtms * module + top * dense_block + outer


def papers_extra(N, M, C, bottom, sdtms, counts, top):
    """What the paper counts beyond ``closed_formula``, of the authors' layers by fvcore.

    Values and projection of a PoolingFormer on all tokens, its mean as a product by ones, W1 after
    upsampling, pooling, and norms at four operations per element; not the two products of attention
    in generation and recovery, a fused kernel that fvcore passes by.
    """
    norm = 4 * C  # of a token
    dense_block, sparse = 2 * N * norm, 2 * M * norm
    pooling = 2 * (N - 1) * C**2 + N**2 * C + 2 * N * norm
    generation = N * C + (N + 2 * M) * norm - 2 * M * N * C
    recovery = (N - M) * C**2 + (2 * N + M) * norm - 2 * M * N * C
    g, s, r, d = counts
    module = g * generation + s * sparse + r * recovery + d * dense_block
    return bottom * pooling + sdtms * module + top * dense_block + N * norm


def dit_macs(network, grid=None, as_paper=False):
    """Multiply-adds of one call of a ``SparseDiT`` config."""
    side = network['input_size'] // network['patch_size']
    values = network['in_channels'] * network['patch_size'] ** 2
    shape = (
        side**2, math.prod(grid or (side, side)), network['hidden_size'], network['num_bottom'],
        network['num_sdtm'], network.get('sdtm', {}).get('block_counts', (0, 0, 0, 0)),
        network['num_top'],
    )  # fmt: skip
    outer = values, values * (2 if network['learn_sigma'] else 1)
    return closed_formula(*shape, *outer) + as_paper * papers_extra(*shape)
