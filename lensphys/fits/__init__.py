"""FITS as the archives write it: what things are called, opened with care, headers, images, kernels; and our results.

Below the rooms that know of lenses: instruments read their kernels with it, and images of users come through it.
"""
