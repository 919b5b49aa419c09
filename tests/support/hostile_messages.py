"""What a hostile kernel sends, by the thousand: strategies whose examples are code that sends frames and messages.

Each value of ACTIONS is a piece of code for a cell after PREAMBLE. Bytes are made here, so that any of them can be
sent; what only the kernel knows, like the id of what it runs, is filled in there. What is long is written short
(`b'[],' * 300_000`), so that a cell can send megabytes.
"""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st

from kernelrepl.outputs.transcript import DROPPED
from tests.sandbox.test_fuzz_kernel import COMPONENT, NUMBERS
from tests.sandbox.test_hostile_kernel import HEADERS
from tests.support import hostile_frames
from tests.unit.test_transcript import CONTENTS
from tests.unit.test_wire import JSON, TEXTS

PREAMBLE = (
    hostile_frames.PREAMBLE
    + """
import faulthandler as _faulthandler, os as _os, select as _select, socket as _socket, stat as _stat

_faulthandler.dump_traceback_later(1, exit=True)  # a kernel that hangs is no use, and whoever asked would wait for it

def _filled(data):
    return data.replace(b"@RUNS@", _kernel.get_parent()["header"]["msg_id"].encode())

def _listen():
    # Takes from the channel what the keeper has answered, so that it does not stand in the way of the next.
    _deadline = _time.monotonic() + 0.5
    while _select.select([_channel], [], [], 0.05)[0] and _time.monotonic() < _deadline:
        if not _channel._sock.recv(1 << 20):
            return

def _send(socket, parts, key=None, before=(), after=()):
    signature = _kernel.session.sign(parts) if key is None else key
    frames = [*before, b"<IDS|MSG>", signature, *parts, *after]
    sockets = {"iopub": _kernel.iopub_socket, "shell": _kernel.shell_stream.socket, "stdin": _kernel.stdin_socket,
               "control": _kernel.control_stream.socket}
    sockets[socket].send_multipart(frames if socket == "iopub" else [b"keeper", *frames])

def _answer_with(metadata, content):
    # The next reply has these parts in place of its own.
    session = _kernel.session
    def serialize(message, ident=None):
        frames = type(session).serialize(session, message, ident)
        if message["header"]["msg_type"].endswith("_reply"):
            del session.serialize
            parts = [*frames[-4:-2], metadata, content]
            frames[-5:] = [session.sign(parts), *parts]
        return frames
    session.serialize = serialize

def _junk(data):
    # Into each connection that this process has.
    for number in range(3, 200):
        try:
            if _stat.S_ISSOCK(_os.fstat(number).st_mode) and number != _channel.fileno():
                _os.set_blocking(number, False)
                _os.write(number, data)
        except OSError:
            pass

class _Loading:
    # Runs code when it is loaded.
    def __init__(self, code):
        self.code = code
    def __reduce__(self):
        return exec, ("from IPython import get_ipython\\n" + self.code,)
"""
)

LARGE_BYTES = 3 << 20
MOST_CHARS = 25_000
"""Of an example: longer ones cannot be reported."""
UNITS = ("[],", "{},", "1,", '"a",', '{"a":[]},', "[[[[1]]]],", '"\\ud800",', "1e999,", '"\\u2200",', '"\u2200",[],')
"""Of such, long texts are made."""
SLOT = "@LONG@"


def code_of(text: str, unit: str = "", encoding: str = "utf-8") -> str:
    """An expression for the bytes of a text, where a list of very many stands in the place of SLOT."""
    parts = [part.encode(encoding, "surrogatepass") for part in text.split(f'"{SLOT}"')]
    if len(parts) == 1:
        return f"_filled({parts[0]!r})"
    unit_bytes = unit.encode(encoding)
    opening, closing = (found.encode(encoding) for found in ("[", "0]"))
    middle = f"{opening!r} + {unit_bytes!r} * {LARGE_BYTES // len(unit_bytes) // (len(parts) - 1)} + {closing!r}"
    return f"_filled({f' + {middle} + '.join(map(repr, parts))})"


JSON_OR_LONG = JSON | st.just(SLOT)
ENCODINGS = st.sampled_from(["utf-8"] * 8 + ["utf-16-le", "utf-16", "utf-32"])


@st.composite
def texts_of(draw: st.DrawFn, values: st.SearchStrategy[Any]) -> str:
    """Code for the bytes of a JSON text of such values; now and then for some that are none."""
    if draw(st.integers(0, 15)) == 0:
        return repr(draw(st.binary(max_size=40)))
    return code_of(json.dumps(draw(values)), draw(st.sampled_from(UNITS)), draw(ENCODINGS))


@st.composite
def _with_lies(draw: st.DrawFn, values: dict[str, st.SearchStrategy[Any]]) -> dict[str, Any]:
    found = draw(st.fixed_dictionaries(values))
    for _ in range(draw(st.sampled_from([0, 0, 1, 1, 2]))):
        name = draw(st.sampled_from([*values, "nobody knows", "msg_id", "type", "\ud800"]))
        if draw(st.integers(0, 3)):
            found[name] = draw(JSON_OR_LONG)
        else:
            found.pop(name, None)
    return found


def lying(values: dict[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[dict[str, Any]]:
    """Dicts of such values, of which one or two may be missing or anything, and some that nobody knows."""
    return _with_lies(values)


# Frames

KEYS = st.integers(0, 8) | NUMBERS
ROOTS = st.lists(KEYS, max_size=3)
LOST = st.lists(lying({"name": st.sampled_from(["kept", "big", "x"]), "type": TEXTS, "reason": TEXTS}), max_size=3)
COMMIT: dict[str, st.SearchStrategy[Any]] = {
    "commit": NUMBERS,
    "cause": st.just("execution"),
    "request": st.sampled_from(["@RUNS@", "", "x"]),
    "outcome": st.none()
    | lying({"status": st.just("ok"), "execution_count": NUMBERS, "duration_s": NUMBERS, "error": st.none()}),
    "outputs_bytes": st.just(0) | NUMBERS,
    "names": st.dictionaries(TEXTS, st.tuples(KEYS, TEXTS, NUMBERS, TEXTS).map(list), max_size=3),
    "unsaved": st.dictionaries(TEXTS, st.tuples(TEXTS, TEXTS, TEXTS, TEXTS).map(list), max_size=3),
    "deleted": st.lists(TEXTS | st.just("kept"), max_size=2),
    "components": st.lists(COMPONENT, max_size=3),
    "closed": ROOTS,
    "magic": st.just(""),
    "failure": st.none() | TEXTS,
    "missed": NUMBERS,
    "saved": lying(dict.fromkeys(("created", "changed", "deleted"), st.lists(TEXTS, max_size=3))),
}
BODIES: dict[str, dict[str, st.SearchStrategy[Any]]] = {
    "begin": {"request": st.sampled_from(["@RUNS@", "", "x"])},
    "stage": {"component": KEYS},
    "commit": COMMIT,
    "audited": {},
    "adopted": {},
    "want": {"components": ROOTS},
    "emptied": {"slot": KEYS},
    "loading": {"component": KEYS},
    "loaded": {"not_restored": LOST},
    "ready": {"restored": st.lists(TEXTS | st.just("kept"), max_size=3), "not_restored": LOST},
    "hello": {"protocol": NUMBERS, "python": TEXTS, "packages": st.dictionaries(TEXTS, JSON, max_size=3)},
    "forked": {"pid": NUMBERS},
    "refused": {"reason": TEXTS},
    "nonsense": {},
}


def header_of(kind: str) -> st.SearchStrategy[dict[str, Any]]:
    """The headers of one type of frame."""
    return lying(BODIES[kind]).map(lambda fields: {"type": kind, **fields})


FRAME_HEADERS = st.sampled_from(sorted(BODIES)).flatmap(header_of) | HEADERS
PAYLOADS = st.sampled_from(["b''"] * 4 + ["b'[]'", "b'x' * 9000", "b'x' * 3_000_000"]) | texts_of(
    st.lists(st.fixed_dictionaries({"type": TEXTS, "content": CONTENTS}), max_size=3)
)
ANNOUNCED = st.just("None") | st.just("None") | st.just("None") | st.integers(0, (1 << 64) - 1).map(str)
FRAMES = st.builds(
    lambda header, payload, announced: f"_frame({header}, {payload}, {announced})",
    texts_of(FRAME_HEADERS), PAYLOADS, ANNOUNCED,
)  # fmt: skip
FOLLOWED = st.builds(lambda frame, listens: frame + "\n_listen()" * listens, FRAMES, st.integers(0, 3).map(bool))


# Messages

MESSAGE_TYPES = st.sampled_from(
    [
        "stream", "execute_result", "display_data", "update_display_data", "clear_output", "error", "status",
        "execute_input", "comm_open", "comm_msg", "comm_close", "iopub_welcome", "input_request", "execute_reply",
        "complete_reply", "inspect_reply", "shutdown_reply", "debug_event", "kernel_info_reply", "nobody_knows",
        DROPPED,
    ]
)  # fmt: skip
IDS = st.sampled_from(["@RUNS@"] * 6 + ["", "other"])
HEADER: dict[str, st.SearchStrategy[Any]] = {
    "msg_id": IDS | TEXTS,
    "msg_type": MESSAGE_TYPES | MESSAGE_TYPES | MESSAGE_TYPES | TEXTS,
    "session": TEXTS,
    "username": TEXTS,
    "version": st.just("5.3"),
    "date": st.just("2020-01-01T00:00:00Z") | TEXTS,
}
PARENT = {**HEADER, "msg_id": IDS}
CONTENT: dict[str, st.SearchStrategy[Any]] = {
    "name": st.sampled_from(["stdout", "stderr"]),
    "text": TEXTS,
    "data": st.dictionaries(
        st.sampled_from(["text/plain", "text/html", "image/png", "image/svg+xml", "application/json", "text/markdown"])
        | TEXTS,
        TEXTS | JSON_OR_LONG | st.just("<table><tr><td>1</td></tr></table>"),
        max_size=4,
    ),
    "metadata": st.just({}),
    "transient": lying({"display_id": TEXTS}),
    "execution_state": st.sampled_from(["busy", "idle", "starting", "dead"]),
    "execution_count": NUMBERS,
    "code": TEXTS,
    "wait": st.booleans(),
    "ename": TEXTS,
    "evalue": TEXTS,
    "traceback": st.lists(TEXTS, max_size=3),
    "prompt": TEXTS,
    "password": st.booleans(),
    "count": NUMBERS,
    "status": st.sampled_from(["ok", "error", "aborted"]),
    "payload": st.lists(lying({"source": st.sampled_from(["page", "set_next_input", "ask_exit"])}), max_size=2),
    "user_expressions": st.dictionaries(TEXTS, JSON, max_size=2),
    "matches": st.lists(TEXTS, max_size=3),
}
BUFFERS = st.lists(st.binary(max_size=20).map(repr) | st.just("b'x' * 1_000_000"), max_size=3)
KEPT_KEYS = st.just("None") | st.just("None") | st.just("None") | st.binary(max_size=70).map(repr)


@st.composite
def messages(draw: st.DrawFn) -> str:
    """Code that sends a message, or what is almost one."""
    socket = draw(st.sampled_from(["iopub"] * 4 + ["shell", "shell", "stdin", "control"]))
    parts = [draw(texts_of(lying(HEADER))), draw(texts_of(lying(PARENT) | lying(PARENT)))]
    parts += [draw(texts_of(lying({"started": TEXTS}) | JSON_OR_LONG)), draw(texts_of(lying(CONTENT) | CONTENTS))]
    if draw(st.integers(0, 9)) == 0:
        parts = draw(st.lists(st.sampled_from(parts), max_size=6))
    before, after = draw(BUFFERS), draw(BUFFERS)
    lists = (f"[{', '.join(found)}]" for found in (parts, before, after))
    whole, front, back = lists
    times = draw(st.sampled_from([1, 1, 1, 1, 300]))
    sent = f"_send({socket!r}, {whole}, {draw(KEPT_KEYS)}, {front}, {back})"
    return sent if times == 1 else f"for _ in range({times}): {sent.replace(str(LARGE_BYTES), '1000')}"


REPLIES = st.builds(
    lambda metadata, content: f"_answer_with({metadata}, {content})",
    texts_of(lying({"started": TEXTS})), texts_of(lying(CONTENT)),
)  # fmt: skip
JUNK = st.builds(
    "_junk({!r})".format, st.binary(max_size=100) | st.sampled_from([b"\xff" * 64, b"\x04\xff" + b"\x7f" * 8])
)
_SEVERAL = st.lists(
    FOLLOWED | FOLLOWED | messages() | messages() | messages() | messages() | REPLIES | JUNK, min_size=1, max_size=5
)
ACTIONS = _SEVERAL.map("\n".join).filter(lambda code: len(code) < MOST_CHARS)
LOADING_ACTIONS = st.lists(FRAMES, min_size=1, max_size=3).map("\n".join).filter(lambda code: len(code) < MOST_CHARS)
"""What is sent while a session is restored: there are no sockets of Jupyter yet."""
