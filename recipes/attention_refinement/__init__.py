"""Heads pruned and spans limited in a recogniser, as Yang, Liu and Lee (2020) did in Mockingjays, by word error rate."""
