# Table 1, ImageNet 512: xl_512.py with the least memory per GPU (docs/training.md): 235 G.
_base_ = ['./xl_512.py', '../_base_/fsdp.py']

recompute_layers = True  # keep the inputs of layers only; one more forward pass per iteration
