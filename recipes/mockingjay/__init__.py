"""Repeats the comparisons of Yang, Liu and Lee (2020) on small Mockingjays of our own."""
