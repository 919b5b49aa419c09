"""Changes something with every look at it, so that each audit finds a change."""

import random

_getstate = random.getstate


def _getstate_of_another() -> tuple[object, ...]:
    random.random()
    return _getstate()


random.getstate = _getstate_of_another
