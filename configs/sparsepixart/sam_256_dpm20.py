# Sparse PixArt-alpha sampled by 20 steps of DPM-Solver++ (PixArt's usual sampler); the paper has no
# such row. Its guidance covers all latent channels, as PixArt's solver has it.
_base_ = './sam_256.py'

model = dict(
    sampler=dict(
        _delete_=True,
        type='DiffusersSampler',
        scheduler='DPMSolverMultistepScheduler',
        num_steps=20,
    ),
    cfg_channels=None,
)
