"""Reserves two gigabytes of addresses and uses none of them, as allocators of native libraries do."""

import mmap

room = mmap.mmap(-1, 2 << 30, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
