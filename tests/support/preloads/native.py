"""Has a thread that Python does not know of."""

import _thread
import threading

_held = threading.Lock()
_held.acquire()
_thread.start_new_thread(_held.acquire, ())
