"""What recipes share that hold trainings against each other: speech, runs, decoders, comparisons, tables."""
