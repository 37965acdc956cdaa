"""What a method costs: parameters, milliseconds and memory an image."""

from __future__ import annotations

import statistics
import time

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from lensphys.methods import Method
from lensphys.observation import Observation

_MEMORY = "[memory]"


def cost(method: Method, observation: Observation, scale: int, repeats: int = 3) -> dict[str, float | int | None]:
    """Return ``parameters`` of the network, if any, ``milliseconds`` an image and ``peak_mib`` of a batch.

    The time is the median of some runs after a first one; the memory is what the tensors of a run take at once, on
    top of the images and the weights.

    Args:
        method: what is measured.
        observation: a batch, on the device where it shall run.
        scale: the upscaling factor.
        repeats: how many runs.
    """
    seconds = []
    with torch.no_grad():
        for _ in range(repeats + 1):
            start = time.perf_counter()
            method.predict(observation, scale).image.cpu()
            seconds.append(time.perf_counter() - start)
    predicting = getattr(method, "start", method)  # a refinement starts from a network
    network = getattr(predicting, "network", predicting)  # a discriminator predicts nothing
    return {
        "parameters": sum(p.numel() for p in network.parameters()) if isinstance(network, nn.Module) else None,
        "milliseconds": 1000 * statistics.median(seconds[1:]) / len(observation),
        "peak_mib": _peak(method, observation, scale) / 2**20,
    }


def _peak(method: Method, observation: Observation, scale: int) -> int:
    """The largest sum of allocated bytes during a run."""
    if observation.image.is_cuda:
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        with torch.no_grad():
            method.predict(observation, scale)
        return torch.cuda.max_memory_allocated() - before
    with torch.no_grad(), profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        method.predict(observation, scale)
    events = [e for e in record.profiler.kineto_results.events() if e.name() == _MEMORY]
    held = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak
