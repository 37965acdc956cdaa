"""Samples for other tools, in their words: lenstronomy, COOLEST, caustics, FITS."""
