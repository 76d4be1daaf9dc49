"""A classifier that leaves Python: StableHLO, ONNX and LiteRT files, each tried before it is given out."""
