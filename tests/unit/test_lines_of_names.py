"""Which line of code is said to have made a name that was not saved."""

from __future__ import annotations

import pytest

from kernelrepl.store.names_in_code import lines

CODE = """
n = len("g")
s = {"g": 1}  # g = 2
g = (i for i in s)
data = [f"{k}" for k in "ab"]
f = open('x')
for i, (a, b) in pairs: use(a)
with open('y') as h: pass
if (m := 1) == 2: pass
x, *y = f, 2
import numpy as np
from os import path, sep
def fun(q):
    inner = q
    f = 3
class Kind: pass
total += w
w == 3
table.column = 4
globals().update({'dynamic': iter(())})
lock: Lock = Lock()
opened = open('z')
use(opened, end=1)
if opened: other = 2
index[opened] = 3
opened.mode = 4
text = '''
opened = 5
'''
seen = [opened for opened in ()]
same = opened == 6
made = also = iter(())
kept, (deep, *rest) = x
bits >>= 1
with opened: within = 7
"""


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("g", "g = (i for i in s)"),
        ("f", "f = open('x')"),
        ("data", 'data = [f"{k}" for k in "ab"]'),
        ("b", "for i, (a, b) in pairs: use(a)"),
        ("h", "with open('y') as h: pass"),
        ("m", "if (m := 1) == 2: pass"),
        ("y", "x, *y = f, 2"),
        ("np", "import numpy as np"),
        ("sep", "from os import path, sep"),
        ("fun", "def fun(q):"),
        ("inner", "inner = q"),
        ("Kind", "class Kind: pass"),
        ("w", "total += w"),
        ("dynamic", "globals().update({'dynamic': iter(())})"),
        ("lock", "lock: Lock = Lock()"),
        ("opened", "opened = open('z')"),
        ("other", "if opened: other = 2"),
        ("within", "with opened: within = 7"),
        ("also", "made = also = iter(())"),
        ("rest", "kept, (deep, *rest) = x"),
        ("bits", "bits >>= 1"),
        ("same", "same = opened == 6"),
    ],
)
def test_the_line_that_binds_a_name_is_found(name: str, line: str) -> None:
    """Not one that has it in a text, a comment, or as a local name of a function."""
    assert lines(CODE)[name] == line
