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


LIBRARY = """\
File /opt/v/lib/python3.11/site-packages/pandas/core/indexes/base.py:38, in Index.get_loc(self, key)
     37 try:
---> 38     return self._engine.get_loc(key)
     39 except KeyError as err:

File pandas/_libs/index.pyx:172, in pandas._libs.index.IndexEngine.get_loc()
--> 172 'Could not get source, probably due dynamically evaluated source code.'

{message}

The above exception was the direct cause of the following exception:

Cell In[2], line 1
----> 1 df['nope']

File /opt/v/lib/python3.11/site-packages/pandas/core/indexes/base.py:39, in Index.get_loc(self, key)
     38 except KeyError as err:
---> 39     raise KeyError(key) from err

File pandas/_libs/index.pyx:201, in pandas._libs.index.IndexEngine.get_loc()
--> 201 'Could not get source, probably due dynamically evaluated source code.'

KeyError: 'nope'"""
RAISED = [
    "Cell In[2], line 1: df['nope']",
    "... 1 more frame of libraries",
    "pandas/core/indexes/base.py:39, in Index.get_loc: raise KeyError(key) from err",
    "KeyError: 'nope'",
]


def test_an_error_of_a_library_that_is_said_again_is_said_once() -> None:
    """The last frame with a line of source is the one that is left, in place of one of a compiled module."""
    assert brief(LIBRARY.format(message="KeyError: 'nope'")).splitlines() == RAISED


@pytest.mark.parametrize(
    "error",
    [
        "KeyError: 'other'",
        "Cell In[1], line 1\n----> 1 f()\n\nKeyError: 'nope'",
        "KeyError: 'nope'\nwith a note",
    ],
)
def test_another_cause_stays(error: str) -> None:
    """One that says something else, or that was raised by code of the session."""
    lines = brief(LIBRARY.format(message=error)).splitlines()
    assert lines[-len(RAISED) :] == RAISED
    assert "The above exception was the direct cause of the following exception:" in lines
    assert error.splitlines()[-1] in lines[: -len(RAISED)]
