"""How the processes of torchrun find each other, also when it starts them again."""

from __future__ import annotations

import os
import time
import uuid

from torch.distributed import PrefixStore, Store, TCPStore
from torch.distributed.constants import default_pg_timeout


def torchrun_store() -> PrefixStore | None:
    """Gives the processes a part of torchrun's store that holds nothing of earlier processes.

    torchrun keeps its store when it starts its processes again. They would read addresses in it of processes that
    have ended, and fail (github.com/pytorch/pytorch/issues/135712); TORCHELASTIC_RESTART_COUNT does not help, as each
    node counts for itself.

    Returns:
        The store, or None if there is none of torchrun's.
    """
    if os.environ.get('TORCHELASTIC_USE_AGENT_STORE') != 'True':
        return None
    address = os.environ['MASTER_ADDR'], int(os.environ['MASTER_PORT'])
    store = TCPStore(*address, is_master=False, timeout=default_pg_timeout)
    return PrefixStore(_agree(store, int(os.environ['RANK']), int(os.environ['WORLD_SIZE'])), store)


def _agree(store: Store, rank: int, processes: int) -> str:
    """Gives all processes that are alive the same new name: the first one's, once all have answered to it."""
    me = uuid.uuid4().hex
    if rank == 0:
        store.set('lorair/first', me)
        answers = [store.get(f'lorair/{me}/{other}').decode() for other in range(1, processes)]
        store.set(f'lorair/{me}/all', ' '.join(answers))
        return me
    while True:
        first = store.get('lorair/first').decode()  # maybe one that has ended: it has not heard of this process
        store.set(f'lorair/{first}/{rank}', me)
        complete = f'lorair/{first}/all'
        if store.check([complete]) and me in store.get(complete).decode():
            return first
        time.sleep(0.05)
