"""RankSRGAN: sets of images ranked by NIQE, the network that learns to rank them, and its losses."""
