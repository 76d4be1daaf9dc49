"""The paper's networks as pure functions of parameters and arrays: the only place that imports Flax."""
