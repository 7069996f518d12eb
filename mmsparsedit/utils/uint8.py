"""From [-1, 1] to 8 bits, by named rules: another rounding gives another FID."""

import torch
from torch import Tensor

RULES = {
    # DiT, sample_ddp.py: the nearest level, ties upward
    'dit': lambda x: (127.5 * x + 128).clamp(0, 255),
    # ADM, image_sample.py
    'adm': lambda x: ((x + 1) * 127.5).clamp(0, 255),
    # the inverse of x / 127.5 - 1: what was 8 bits before comes back as it was
    'round': lambda x: ((x + 1) * 127.5).round().clamp(0, 255),
}


def to_uint8(x: Tensor, rule: str = 'dit') -> Tensor:
    """Pixels in [-1, 1], of any shape, to uint8 of that shape; what lies outside is clipped.

    Args:
        rule: ``'dit'`` clamp(127.5 x + 128, 0, 255), truncated; ``'adm'`` clamp((x + 1) 127.5,
            0, 255), truncated; ``'round'`` the level nearest to (x + 1) 127.5, ties to even.

    Raises:
        ValueError: another rule, or NaN, which a cast would turn into some grey value.
    """
    check_rule(rule)
    images = x.reshape(len(x) if x.ndim > 3 else 1, -1)  # a batch, or one image
    if bad := images.isnan().any(dim=1).sum().item():
        raise ValueError(
            f'got NaN in {bad} of {len(images)} images, expected finite ones: check the network '
            'and the autoencoder, in half precision first'
        )
    return RULES[rule](x.float()).to(torch.uint8)


def check_rule(rule: str) -> None:
    """ValueError if there is no such rule."""
    if rule not in RULES:
        raise ValueError(f'got the rule {rule!r} of 8 bits, expected one of {list(RULES)}')
