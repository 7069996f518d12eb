"""Colours of plots, told apart by those who do not see red or green (Okabe and Ito's)."""

SPARSE = '#0072b2'
DENSE = '#7a7a7a'
MEAN = '#d55e00'
PAPER = '#b4508a'
