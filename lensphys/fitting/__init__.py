"""Fits of sources and lenses: batched least squares in bounded parameters with priors."""

