# Weights, gradients, averages and optimizer state sharded over all processes, for networks that do
# not fit one GPU; needs torch 2.6. One process trains as without it.
model_wrapper_cfg = dict(type='FullyShardedModel')
