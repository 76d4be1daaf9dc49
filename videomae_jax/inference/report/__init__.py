"""A run, or several beside each other, as one HTML file that needs nothing else."""
