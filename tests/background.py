"""Background threads for tests."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def in_background(*jobs: Callable[[threading.Event], None]) -> Iterator[None]:
    """Run each job in a thread until the block ends. A job must return when its event is set."""
    over = threading.Event()
    threads = [threading.Thread(target=job, args=(over,)) for job in jobs]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join()
