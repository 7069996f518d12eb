"""Files that are whole or not there, hashes of files, and the rules from floats to 8 bits."""

from .setup_env import register_all_modules

__all__ = ['register_all_modules']
