"""What one pass observes: one file a measure, a class and its pure function."""
