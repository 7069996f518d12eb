# mnist28_distill.py with low-rank adapters instead: 1.9 % of the weights are trained (train
# dit_mnist28.py first, and fit the merges to it); no row of the paper.
_base_ = './mnist28_distill.py'

# of attention and MLP what they write into the tokens; W1 and W2 as a whole
model = dict(distillation=None, lora=dict(rank=1, targets=('proj', 'fc2')))
optim_wrapper = dict(optimizer=dict(lr=5e-3))
