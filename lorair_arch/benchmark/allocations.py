"""The peak of what PyTorch allocates on the CPU while something runs."""

from __future__ import annotations

from collections.abc import Callable

from torch.autograd import profiler


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
