"""Which units a model can do without what they learnt: resets of every unit in turn, and module criticality."""
