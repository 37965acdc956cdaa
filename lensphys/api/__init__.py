"""What ``import lensphys as lp`` offers: the names are in `lensphys`, and loaded when they are asked for.

A thin layer: it reads, chooses, fits and writes by the rooms below, and the command line does so by the same functions.
"""
