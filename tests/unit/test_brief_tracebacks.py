"""A traceback as a model reads it: its own frames, where a library raised, and each message whole."""

from __future__ import annotations

import traceback

import pytest

from kernelrepl.outputs.tracebacks import brief

IPYTHON = """\
---------------------------------------------------------------------------
KeyError                                  Traceback (most recent call last)
Cell In[7], line 5
      3 def g(n):
      4     return {}[n]
----> 5 f(3)

Cell In[7], line 2, in f(n)
      1 def f(n):
----> 2     return g(n)

File /workspace/mine.py:12, in g(n, *rest)
     11     try:
---> 12         return look(
     13             n)

File /usr/lib/python3.12/site-packages/some/lib.py:3, in C.look(self, n)
      1 class C:
      2     def look(self, n):
----> 3         return self.again(n)

File /usr/lib/python3.12/some/other.py:9, in C.again(self, n)
----> 9 return {}[n]

KeyError: 3

a second line of the message"""
PYTHON = """\
  Cell In[5], line 1, in <module>
    df['nope']
    ~~^^^^^^^^
  File "/opt/v/lib/python3.11/site-packages/pandas/core/frame.py", line 43, in __getitem__
    indexer = self.columns.get_loc(key)
              ^^^^^^^^^^^^^^^^^^^^^^^^^
  File "/opt/v/lib/python3.11/site-packages/pandas/core/indexes/base.py", line 38, in get_loc
    raise KeyError(key) from err
KeyError: 'nope'"""


def test_frames_of_ipython_become_lines() -> None:
    """Cells, files of the session, and the last frame of libraries in a row."""
    assert brief(IPYTHON).splitlines() == [
        "Cell In[7], line 5: f(3)",
        "Cell In[7], line 2, in f: return g(n)",
        "/workspace/mine.py:12, in g: return look(",
        "... 1 more frame of libraries",
        "some/other.py:9, in C.again: return {}[n]",
        "KeyError: 3",
        "",
        "a second line of the message",
    ]


def test_frames_of_python_become_lines() -> None:
    assert brief(PYTHON).splitlines() == [
        "Cell In[5], line 1: df['nope']",
        "... 1 more frame of libraries",
        "pandas/core/indexes/base.py:38, in get_loc: raise KeyError(key) from err",
        "KeyError: 'nope'",
    ]


def test_both_of_two_exceptions_are_there() -> None:
    """With what stands between them."""
    text = brief(f"{PYTHON}\n\nDuring handling of the above exception, another exception occurred:\n\n{IPYTHON}")
    assert "KeyError: 'nope'" in text
    assert "During handling of the above exception, another exception occurred:" in text
    assert text.endswith("KeyError: 3\n\na second line of the message")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ValueError: no frames",
        "  Cell In[19], line 1\n    for i in range(3) print(i)\n                      ^\nSyntaxError: invalid syntax",
        "".join(traceback.format_exception(ExceptionGroup("several", [ValueError("one"), KeyError("two")]))),
        "MyError: a message\n\n\n    that has lines\n  of all kinds",
    ],
)
def test_what_is_no_frame_stays(text: str) -> None:
    assert brief(text) == text.strip("\n")
