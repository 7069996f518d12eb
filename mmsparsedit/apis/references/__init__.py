"""This package beside the public repositories that it follows: what the same inputs give there."""
