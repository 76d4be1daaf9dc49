"""Several hosts as one run: they join, agree and stop together."""
