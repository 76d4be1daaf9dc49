"""A classifier on what is still being recorded or sent."""
