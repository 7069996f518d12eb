"""Low-rank adapters (LoRA, Hu et al. 2022): frozen linear maps with a trained product beside them.

C_in and C_out widths of a linear map, k rank.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

DOWN, UP = 'lora_down', 'lora_up'  # the last part of their names in checkpoints
TARGETS = ('qkv', 'v', 'q_linear', 'kv_linear', 'proj', 'fc1', 'fc2')  # of attention and MLP


class LowRankLinear(nn.Module):
    """y = (W + up down) x + b with W [C_out, C_in] and b frozen, ``down`` [k, C_in] and ``up``.

    ``up`` [C_out, k] starts at zero, so that nothing changes at first. No factor of scale: it would
    be one more number that a checkpoint had to carry. No ``nn.Linear``, because who reads the
    weight alone would miss the product. Weight and bias keep their names.
    """

    def __init__(self, linear: nn.Linear, rank: int) -> None:
        super().__init__()
        if rank < 1:
            raise ValueError(f'rank of an adapter must be at least 1, got {rank}.')
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.weight, self.bias = linear.weight, linear.bias
        options = dict(device=linear.weight.device, dtype=linear.weight.dtype)
        down = torch.empty(rank, linear.in_features, **options)
        self.lora_down = nn.Parameter(nn.init.kaiming_uniform_(down, a=5**0.5))
        self.lora_up = nn.Parameter(torch.zeros(linear.out_features, rank, **options))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias) + F.linear(
            F.linear(x, self.lora_down), self.lora_up
        )


def add_adapters(
    network: nn.Module,
    rank: int = 4,
    targets: Sequence[str] = TARGETS,
    trained: Sequence[str] = ('merge_sparse', 'merge_dense'),
) -> float:
    """Freeze a network in place but for adapters of its layers and what ``trained`` names.

    Args:
        network: a ``SparseTransformer``; only linear maps inside its layers get adapters.
        targets: names of linear maps that get one, those of attention and MLP by default.
        trained: names of linear maps that are trained as a whole: W1 and W2 (SparseDiT, Eq. 3).

    Returns:
        Share of the weights that is trained, the adapters counted on both sides.

    Raises:
        ValueError: no layer has a linear map of such a name.
    """
    network.requires_grad_(False)
    found = []
    for _, layer in network.named_layers():
        for owner in layer.modules():
            for name, linear in owner.named_children():
                if isinstance(linear, nn.Linear) and name in (*targets, *trained):
                    found.append((owner, name, linear))
    if not any(name in targets for _, name, _ in found):
        raise ValueError(f'no linear map of the layers is called one of {tuple(targets)}.')
    for owner, name, linear in found:
        if name in trained:
            linear.requires_grad_(True)
        else:
            setattr(owner, name, LowRankLinear(linear, rank))
    weights = list(network.parameters())
    return sum(p.numel() for p in weights if p.requires_grad) / sum(p.numel() for p in weights)
