"""Makes the embedded model and speech."""
