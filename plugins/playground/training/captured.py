"""Runs a training step many times: as one CUDA graph on an accelerator, else call by call.

The networks of the playground are so small that an accelerator spends most of a step waiting for
the next kernel to be launched. A graph launches the kernels of a whole step at once.
"""

from collections.abc import Callable

import torch

WARM = 3
"""The steps that run before the graph is recorded, as PyTorch's notes on CUDA graphs advise."""


def captured(step: Callable[[], None], device: torch.device) -> Callable[[], None]:
    """Returns a function that runs a step, which reads and writes tensors in place.

    The step runs `WARM` times before it is recorded.

    Args:
        step: The step. It must not wait for the device, and must not move tensors to it.
        device: The device of its tensors.
    """
    if device.type != "cuda":
        return step
    beside = torch.cuda.Stream()
    beside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(beside):
        for _ in range(WARM):
            step()
    torch.cuda.current_stream().wait_stream(beside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay
