"""Classifiers for use without this package, as StableHLO, ONNX and LiteRT files that are verified."""
