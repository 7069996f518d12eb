# ucf101.py with Latte's image-joint training, 8 frames of other videos behind each clip; no row of
# the paper, whose Table 2 does not say which training it used.
_base_ = './ucf101.py'

model = dict(type='JointVideoGenerator')
train_dataloader = dict(batch_size=4, dataset=dict(num_images=8))
