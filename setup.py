from setuptools import find_packages, setup


def version() -> str:
    scope: dict = {}
    with open('mmsparsedit/version.py') as file:
        exec(file.read(), scope)
    return scope['__version__']


setup(
    name='mmsparsedit',
    version=version(),
    description='Sparse-token diffusion transformers (SparseDiT) on the OpenMMLab stack',
    long_description=open('README.md', encoding='utf-8').read(),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    packages=find_packages(include=['mmsparsedit', 'mmsparsedit.*']),
    python_requires='>=3.10',
    install_requires=[
        'torch>=2.6',  # before that even weights_only=True could run code
        'torchvision',
        'mmengine>=0.10.7',
        'mmcv-lite>=2.1.0',
        'opencv-python',  # mmengine imports cv2; 0.11 no longer declares it
        'fvcore',
        'decord',
        'numpy',
        'scipy',
        'Pillow',
        'safetensors',
        'scikit-learn',  # the handwritten digits of the example, and the classifier judging them
        'tensorboard',
    ],
    extras_require={
        # autoencoders of latent models and their solvers; text encoders
        'diffusers': ['diffusers>=0.30', 'transformers>=4.40', 'sentencepiece'],
        'eval': ['torch-fidelity>=0.4.0'],
        'video': ['av'],
        'test': [
            'pytest',
            'pytest-xdist>=3.7',
            'ruff>=0.17,<0.18',  # another version formats otherwise
            'matplotlib',
            'scikit-image',
            'diffusers>=0.30',
            'peft',  # LoRA on the diffusers classes
            'transformers>=4.40',
            'torch-fidelity>=0.4.0',
            'av',
        ],
    },
)
