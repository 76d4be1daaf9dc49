"""Compiles a run for a TPU slice that nobody has to own, and says what it would need there."""
