"""Classification of live video."""
