"""Returns memory that libraries keep for reuse to the operating system."""

import ctypes
import gc
import sys

import pyarrow as pa


def release_memory() -> None:
    """Collect garbage, and release the free memory of Arrow's pool and of glibc's heap.

    Called between the steps of a run and between the parts of `train`, so that the peak of one
    doesn't add to what those before it no longer use.
    """
    gc.collect()
    pa.default_memory_pool().release_unused()
    if sys.platform == "linux":
        try:
            ctypes.CDLL("libc.so.6").malloc_trim(0)
        except (OSError, AttributeError):  # another C library
            return
