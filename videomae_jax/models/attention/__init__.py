"""How attention is computed, and which of the ways is taken."""
