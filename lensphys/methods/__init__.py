"""Ways to learn or compute super-resolution, one a file; all return a `Prediction` (floor 8)."""
