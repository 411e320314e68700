"""How one contestant is measured: the time of a call, or the peak memory of a training step."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

import torch
from torch import Tensor

from lorair_arch.benchmark.allocations import peak_allocation
from lorair_arch.models.stage import StageModel

# Quicker calls are repeated until they have taken this long together: seconds.
_SHORTEST = 0.1


class Measure(Protocol):
    """One contestant.

    Attributes:
        unit: Of the measured values.
        amount: What one call gets done (images, floating-point operations).
    """

    unit: str
    amount: float

    def warm_up(self) -> None:
        """Does what only the first calls do."""

    def measure(self) -> float:
        """Gives one value."""


class Seconds:
    """The time of a call, on an idle device."""

    unit = 's'

    def __init__(self, run: Callable[[], object], device: str, amount: float = 1) -> None:
        self.run, self.device, self.amount = run, device, amount
        self.calls = 1

    def warm_up(self) -> None:
        self.measure()
        self.calls = max(1, math.ceil(_SHORTEST / self.measure()))

    def measure(self) -> float:
        self._wait()
        start = time.perf_counter()
        for _ in range(self.calls):
            self.run()
        self._wait()
        return (time.perf_counter() - start) / self.calls

    def _wait(self) -> None:
        if self.device == 'cuda':
            torch.cuda.synchronize()


class PeakBytes:
    """The peak memory of a training step: weights, gradients, optimiser and all that the step allocates.

    PyTorch's own allocators are asked: on the GPU for their peak, on the CPU, through the profiler, for every
    allocation and release in the order of time. Both are exact and repeat. The size of the process would not do: it
    holds what the C library keeps for later and the peak of whatever ran before; and counting the tensors that Python
    sees would miss what operators allocate within. Only the scratch space that oneDNN gets for itself is not seen.
    """

    unit = 'bytes'
    amount = 1

    def __init__(self, model: StageModel, step: Callable[[], object], device: str) -> None:
        self.model, self.step, self.device = model, step, device

    def warm_up(self) -> None:
        self.step()  # allocates the state of the optimiser

    def measure(self) -> float:
        optimizer = self.model.optimizers[0]
        optimizer.zero_grad(set_to_none=True)  # the release of what was allocated before would go unseen
        states = (value for state in optimizer.state.values() for value in state.values())
        own = _bytes([*self.model.net.parameters(), *self.model.net.buffers(), *states])
        return own + (self._growth_cuda() if self.device == 'cuda' else peak_allocation(self.step))

    def _growth_cuda(self) -> int:
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        self.step()
        return torch.cuda.max_memory_allocated() - before


def take_turns(
    contestants: Mapping[str, Measure], rounds: int, progress: Callable[[str], object]
) -> dict[str, list[float]]:
    """Measures all contestants in every round, one after the other, so that a drift of the machine meets them alike.

    Args:
        contestants: By name.
        rounds: How often.
        progress: Gets the name of what is measured next, and '' after each round.

    Returns:
        The values of each contestant, one for each round.
    """
    for name, contestant in contestants.items():
        progress(f'warm-up, {name}')
        contestant.warm_up()
    values: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, contestant in contestants.items():
            progress(name)
            values[name].append(contestant.measure())
        progress('')
    return values


def _bytes(values: Iterable[object]) -> int:
    return sum(value.nbytes for value in values if isinstance(value, Tensor))
