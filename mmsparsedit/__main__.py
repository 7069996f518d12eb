"""``python -m mmsparsedit`` is the console command; ``torchrun -m mmsparsedit`` starts it often."""

from .cli import main

if __name__ == '__main__':
    main()
