"""A wav2vec 2.0 that avoids abnormal blocks against the original, as in Chen and Asgari (2021)."""
