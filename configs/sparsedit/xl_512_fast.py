# xl_512.py sampled in bf16, compiled, one CUDA graph per stage; the protocol of Table 1, of which
# it is no row of its own. docs/performance.md has the levers that change more than rounding.
_base_ = './xl_512.py'

model = dict(
    acceleration=dict(compile=True, cuda_graphs=True, dtype='bfloat16'),
    autoencoder=dict(dtype='bfloat16', channels_last=True, batch_size=32),
)
