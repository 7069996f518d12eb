"""SparseDiT once more, straight from the paper's formulas, from a state dict alone.

Nothing is shared with the package: attention is a softmax of explicit scores, PoolingFormer a
product with an N x N matrix of ones, the merge upsamples before W1, pooling averages by loops.
"""

import math

import numpy as np
import torch


def linear(state, name, x):
    return x @ state[f'{name}.weight'].T + state[f'{name}.bias']


def layer_norm(x):
    mean = x.mean(-1, keepdim=True)
    return (x - mean) / torch.sqrt(((x - mean) ** 2).mean(-1, keepdim=True) + 1e-6)


def silu(x):
    return x / (1 + torch.exp(-x))


def gelu_tanh(x):
    return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def attention(q, k, v, heads):
    B, N, C = q.shape
    out = torch.zeros_like(q)
    d = C // heads
    for h in range(heads):
        part = slice(h * d, (h + 1) * d)
        scores = q[..., part] @ k[..., part].transpose(1, 2) / math.sqrt(d)
        out[..., part] = torch.softmax(scores, -1) @ v[..., part]
    return out


def pool(x, dense, grid):
    """Adaptive average pooling, cell by cell."""
    B, _, C = x.shape
    maps = x.reshape(B, *dense, C)
    cells = []
    for i in range(grid[0]):
        rows = slice(i * dense[0] // grid[0], -(-(i + 1) * dense[0] // grid[0]))
        for j in range(grid[1]):
            columns = slice(j * dense[1] // grid[1], -(-(j + 1) * dense[1] // grid[1]))
            cells.append(maps[:, rows, columns].mean((1, 2)))
    return torch.stack(cells, 1)


def upsample_nearest(x, grid, dense):
    maps = x.reshape(x.shape[0], *grid, -1)
    rows = [i * grid[0] // dense[0] for i in range(dense[0])]
    columns = [j * grid[1] // dense[1] for j in range(dense[1])]
    return maps[:, rows][:, :, columns].flatten(1, 2)


def block(state, name, x, c, heads, context=None):
    modulation = linear(state, f'{name}.adaLN_modulation.1', silu(c))[:, None]
    shift1, scale1, gate1, shift2, scale2, gate2 = modulation.chunk(6, -1)
    C = x.shape[-1]

    def normed(tokens):
        return layer_norm(tokens) * (1 + scale1) + shift1

    if f'{name}.attn.v.weight' in state:  # Eq. 1 with its matrix of ones
        N = x.shape[1]
        ones = torch.ones(N, N, dtype=x.dtype) / N
        attended = ones @ linear(state, f'{name}.attn.v', normed(x))
    else:
        weight, bias = state[f'{name}.attn.qkv.weight'], state[f'{name}.attn.qkv.bias']
        source = x if context is None else context
        q = normed(x) @ weight[:C].T + bias[:C]
        k = normed(source) @ weight[C : 2 * C].T + bias[C : 2 * C]
        v = normed(source) @ weight[2 * C :].T + bias[2 * C :]
        attended = attention(q, k, v, heads)
    x = x + gate1 * linear(state, f'{name}.attn.proj', attended)
    h = layer_norm(x) * (1 + scale2) + shift2
    h = linear(state, f'{name}.mlp.fc2', gelu_tanh(linear(state, f'{name}.mlp.fc1', h)))
    return x + gate2 * h


def position_table(C, dense):
    table = np.zeros((dense[0] * dense[1], C))
    for n in range(len(table)):
        row, column = divmod(n, dense[1])
        for half, position in enumerate((column, row)):
            for k in range(C // 4):
                angle = position * 10000 ** (-k / (C / 4))
                table[n, half * C // 2 + k] = math.sin(angle)
                table[n, half * C // 2 + C // 4 + k] = math.cos(angle)
    # the package's table is float32, as DiT's
    return torch.from_numpy(table.astype(np.float32)).double()


def forward(state, x, t, y, *, heads, patch, dense, grid, bottom, sdtms, counts, top, reinject):
    """The network's output for x (B, C_in, H, W), all in float64."""
    B, channels = x.shape[:2]
    h, w = dense
    C = state['x_embedder.proj.weight'].shape[0]
    positions = position_table(C, dense)
    patches = torch.stack(
        [
            x[:, :, i * patch : (i + 1) * patch, j * patch : (j + 1) * patch].reshape(B, -1)
            for i in range(h)
            for j in range(w)
        ],
        1,
    )
    tokens = patches @ state['x_embedder.proj.weight'].reshape(C, -1).T
    tokens = tokens + state['x_embedder.proj.bias'] + positions
    # float32 up to the sinusoid, as in DiT
    exponents = torch.arange(128, dtype=torch.float32) / 128
    angles = t.float()[:, None] * torch.exp(-math.log(10000.0) * exponents)
    sinusoid = torch.cat([angles.cos(), angles.sin()], 1).double()
    c = linear(state, 't_embedder.mlp.2', silu(linear(state, 't_embedder.mlp.0', sinusoid)))
    c = c + state['y_embedder.embedding_table.weight'][y]

    for i in range(bottom):
        tokens = block(state, f'bottom.{i}', tokens, c, heads)
    for m in range(sdtms):
        name = f'middle.{m}'
        sparse = pool(tokens, dense, grid)
        for j in range(counts[0]):
            sparse = block(state, f'{name}.generation.{j}', sparse, c, heads, tokens)
        for j in range(counts[1]):
            sparse = block(state, f'{name}.sparse.{j}', sparse, c, heads)
        for j in range(counts[2]):
            recovery = f'{name}.recovery.{j}'
            up = upsample_nearest(sparse, grid, dense)
            tokens = linear(state, f'{recovery}.merge_sparse', up) + linear(
                state, f'{recovery}.merge_dense', tokens
            )
            if reinject:
                tokens = tokens + positions
            tokens = block(state, f'{recovery}.block', tokens, c, heads, sparse)
        for j in range(counts[3]):
            tokens = block(state, f'{name}.dense.{j}', tokens, c, heads)
    for i in range(top):
        tokens = block(state, f'top.{i}', tokens, c, heads)

    modulation = linear(state, 'final_layer.adaLN_modulation.1', silu(c))[:, None]
    shift, scale = modulation.chunk(2, -1)
    out = linear(state, 'final_layer.linear', layer_norm(tokens) * (1 + scale) + shift)
    image = torch.zeros(B, out.shape[-1] // patch**2, h * patch, w * patch, dtype=x.dtype)
    for n in range(h * w):
        i, j = divmod(n, w)
        cell = out[:, n].reshape(B, patch, patch, -1).permute(0, 3, 1, 2)
        image[:, :, i * patch : (i + 1) * patch, j * patch : (j + 1) * patch] = cell
    return image
