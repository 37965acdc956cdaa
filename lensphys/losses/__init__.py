"""Losses: each takes a prediction and what it is judged by, and returns named terms."""
