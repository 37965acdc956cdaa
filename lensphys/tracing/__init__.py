"""Pixels, coordinates, deflection fields, and rays from the image plane to the source plane and back."""
