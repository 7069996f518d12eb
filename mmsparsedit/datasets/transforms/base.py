"""What the transforms of this package share."""

from mmcv.transforms import BaseTransform


class Transform(BaseTransform):
    """A transform that shows its arguments, which it keeps as attributes of their names."""

    def __repr__(self) -> str:
        shown = ', '.join(f'{name}={value!r}' for name, value in vars(self).items())
        return f'{type(self).__name__}({shown})'
