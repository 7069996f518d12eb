import pytest
import torch

from mmsparsedit.utils.uint8 import to_uint8

X = torch.tensor([-1.0, -0.999, 0.0, 0.0039, 0.5, 0.999, 1.0, 3.0, -3.0])


@pytest.mark.parametrize(
    'rule,expected',
    [
        # 127.5 x + 128: 0.5, 0.6275, 128, 128.497, 191.75, 255.3725, 255.5, beyond, beyond
        ('dit', [0, 0, 128, 128, 191, 255, 255, 255, 0]),
        # (x + 1) 127.5: 0, 0.1275, 127.5, 127.997, 191.25, 254.8725, 255, beyond, beyond
        ('adm', [0, 0, 127, 127, 191, 254, 255, 255, 0]),
        ('round', [0, 0, 128, 128, 191, 255, 255, 255, 0]),
    ],
)
def test_rules(rule, expected):
    assert to_uint8(X, rule).tolist() == expected
    assert to_uint8(X.view(3, 1, 3, 1), rule).flatten().tolist() == expected
    if rule == 'dit':
        assert to_uint8(X).tolist() == expected  # the default
        assert not torch.equal((127.5 * X + 128).clamp(0, 255).round().byte(), to_uint8(X))


def test_round_is_the_inverse_of_reading():
    levels = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(to_uint8(levels / 127.5 - 1, 'round'), levels)
    assert to_uint8(torch.zeros(1), 'round').item() == 128  # 127.5, ties to even


def test_half_precision_is_computed_in_single():
    x = torch.linspace(-1, 1, 999).bfloat16()
    assert torch.equal(to_uint8(x), to_uint8(x.float()))


def test_refusals():
    x = torch.zeros(3, 3, 4, 4)
    x[1, 0, 0, 0] = torch.nan
    with pytest.raises(ValueError, match='got NaN in 1 of 3 images'):
        to_uint8(x)
    with pytest.raises(ValueError, match='got NaN in 1 of 1 images'):
        to_uint8(x[1])
    with pytest.raises(ValueError, match="'ceil' of 8 bits, expected one of .*'dit', 'adm'"):
        to_uint8(x[0], 'ceil')
