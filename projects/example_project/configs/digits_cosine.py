# Digits with the example project's block and prune schedule, everything else inherited.
_base_ = '../../../configs/sparsedit/digits.py'

custom_imports = dict(imports=['projects.example_project.example_project'])
model = dict(
    network=dict(bottom_block=dict(type='MaxPoolingBlock')),
    prune=dict(type='CosinePruneScheduler'),
)
