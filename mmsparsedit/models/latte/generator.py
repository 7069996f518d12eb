"""Training a video model on clips and single images at once (Latte, image-joint training)."""

import torch
from mmengine.logging import MessageHub
from torch import Tensor

from mmsparsedit.models.generators import DiffusionGenerator, batch_randomness
from mmsparsedit.registry import MODELS

IMAGE_STREAM = 2**32  # added to the seed: labels of images are dropped independently of clips'


@MODELS.register_module()
class JointVideoGenerator(DiffusionGenerator):
    """``DiffusionGenerator`` whose training data carry images behind the frames of each clip.

    Images share the timestep of their clip, have noise and labels of their own, whose dropping is
    drawn independently, and count in the loss like frames. Sampling makes clips only.
    """

    def loss(
        self, inputs: Tensor, image_label: Tensor | None = None, **conditions: Tensor
    ) -> dict[str, Tensor]:
        """Loss terms of clean data (B, F + I, C, H, W), or moments; ``image_label`` (B, I)."""
        num_images = inputs.shape[1] - self.data_shape[0]
        if num_images < 1:
            raise ValueError(
                f'training data of {inputs.shape[1]} frames: expected images behind the '
                f'{self.data_shape[0]} frames of the clip. Set num_images of the data set, or use '
                'DiffusionGenerator.'
            )
        if image_label is not None and self.network.class_dropout_prob:
            hub = MessageHub.get_current_instance()
            seed, iteration = int(hub.get_info('seed', 0)), int(hub.get_info('iter', 0))
            draw = batch_randomness(seed + IMAGE_STREAM, iteration, inputs.device)
            dropped = draw(torch.rand, image_label.shape) < self.network.class_dropout_prob
            image_label = torch.where(dropped, self.network.num_classes, image_label)
        return super().loss(inputs, image_label=image_label, num_images=num_images, **conditions)

    def condition(
        self, image_label: Tensor | None = None, num_images: int = 0, **conditions: Tensor
    ) -> dict:
        """The network's conditioning: of clips as in the base class, and of their images."""
        given = super().condition(**conditions)
        if num_images:
            given['use_image_num'] = num_images
            if self.network.num_classes is not None:
                given['y_image'] = image_label
        return given

    def _clean_data(self, inputs: Tensor, draw) -> Tensor:
        frames = self.data_shape[0]
        clips = super()._clean_data(inputs[:, :frames], draw)
        images = inputs[:, frames:].float()
        if images.shape[2] == 2 * self.data_shape[1]:
            mean, log_variance = images.chunk(2, dim=2)
            images = mean + (0.5 * log_variance).exp() * draw(torch.randn, mean.shape)
        return torch.cat([clips, images * self.scale_factor], dim=1)
