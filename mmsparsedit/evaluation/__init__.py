"""Metrics: statistics (torch, numpy, scipy only) and what feeds them."""
