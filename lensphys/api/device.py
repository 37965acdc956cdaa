"""Where to compute."""

from __future__ import annotations

from lensphys.basics.checks import LensphysError, check_choice


def device_of(name: str) -> str:
    """Return ``cpu`` or ``cuda``; auto is a GPU where there is one.

    Raises:
        LensphysError: if it is another word, or there is no GPU.
    """
    import torch  # the command line shows its help without it

    check_choice("device", name, ["auto", "cpu", "cuda"])
    if name == "cuda" and not torch.cuda.is_available():
        raise LensphysError("--device cuda: no GPU is available, use auto or cpu")
    return "cuda" if name != "cpu" and torch.cuda.is_available() else "cpu"
