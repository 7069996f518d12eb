# Sparse PixArt-alpha sampled by 20 steps of DPM-Solver++ (PixArt's usual sampler); the paper has no
# such row. Its guidance covers all latent channels, as PixArt's solver has it.
_base_ = './sam_256.py'

model = dict(
    sampler=dict(
        _delete_=True,
        type='DiffusersSampler',
        scheduler='DPMSolverMultistepScheduler',
        num_steps=20,
        # PixArt's solver ends at t = 1/1000 by a second-order step; diffusers' default goes on to
        # sigma 0 by a first-order one
        options=dict(final_sigmas_type='sigma_min', lower_order_final=False),
    ),
    cfg_channels=None,
)
