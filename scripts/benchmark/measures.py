"""How contestants are measured: the time of a call, the peak of memory, in turns; on which machine; what is known."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn
from torch.autograd import profiler
from torch.utils.benchmark import Timer

import lorair_arch
from lorair_arch.errors import DataError, OptionsError
from lorair_arch.files import check_folder, write_json

if TYPE_CHECKING:  # it needs BasicSR, and measuring inference does not
    from lorair_arch.models.stage import StageModel

# Calls are repeated until they have taken this long together: seconds.
_SHORTEST = 0.1

# Weights far enough from their start, where many are 0, and small enough for finite activations.
STD = 0.02


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
        self.run, self.amount = run, amount
        self.timer = Timer('run()', globals={'run': run}, num_threads=torch.get_num_threads())

    def warm_up(self) -> None:
        self.run()

    def measure(self) -> float:
        return self.timer.blocked_autorange(min_run_time=_SHORTEST).median


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


def peak_allocation(run: Callable[[], object]) -> int:
    """Gives the largest number of bytes that was allocated at once, beyond what was there before.

    The profiler sees every allocation and release of PyTorch's allocator, those within operators too, so the count is
    exact and repeats. Only the scratch space that oneDNN gets for itself is not seen.
    """
    with profiler.profile(use_kineto=False, profile_memory=True) as profile:
        run()
    events = [event for event in profile.kineto_results.events() if event.name() == '[memory]']
    now = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        peak = max(peak, now)
    return peak


def describe_machine(device: str) -> dict:
    """Describes this machine and what runs on it; `device` is 'cpu' or 'cuda'."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
    machine = {
        'device': device,
        'cpu': _cpu_name(),
        'cores': cores,
        'threads': torch.get_num_threads(),
        'lorair': lorair_arch.__version__,
        'torch': torch.__version__,
        'python': platform.python_version(),
        'system': platform.platform(),
    }
    if device == 'cuda':
        machine |= {
            'gpu': torch.cuda.get_device_name(),
            'cuda': torch.version.cuda,
            'cudnn': torch.backends.cudnn.version(),
            'tf32': torch.backends.cuda.matmul.allow_tf32,
        }
    return machine


def _cpu_name() -> str:
    info = Path('/proc/cpuinfo')
    if info.exists():
        for line in info.read_text(encoding='utf-8').splitlines():
            if line.startswith('model name'):
                return line.split(':', 1)[1].strip()
    return platform.processor() or platform.machine()


def perturb(net: nn.Module, std: float = STD) -> None:
    """Moves every parameter off its start: experts, beta and gamma begin at 0, would hide mistakes and save work."""
    with torch.no_grad():
        for param in net.parameters():
            param.add_(torch.randn_like(param) * std)


def continued(file: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """Gives what an earlier run has measured with the same settings, so that this one measures the rest.

    Args:
        file: Of the results, JSON; written here, as is its folder where there is none.
        settings: What results depend on.

    Returns:
        The content of the file: `settings` and `results`, which are empty at first.

    Raises:
        DataError: The file holds something else.
        OptionsError: It was written with other settings.
        OutputError: It cannot be written.
    """
    check_folder(file.parent.parent)
    file.parent.mkdir(exist_ok=True)
    content: dict[str, Any] = {'settings': settings, 'results': {}}
    if file.exists():
        try:
            found = json.loads(file.read_text(encoding='utf-8'))
            content = {key: found[key] for key in content}
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f'{file} holds something else than results: take another --output') from error
    if content['settings'] != settings:
        raise OptionsError(f'{file} has results with {content["settings"]}: take the same, or another --output')
    write_json(file, content)  # before anything is measured with these settings
    return content
