"""What a hostile kernel sends: code that, run in a session, sends frames and messages that lie or weigh too much.

Each entry of PAYLOADS is code for a cell of the attacking session. It runs in the kernel, as code of a user, and sends
over the kernel's own descriptors: the channel to the keeper, or the Jupyter sockets with the kernel's own key. What it
defines is not saved. After it, the kernel may be dead: that is its loss. `BESIDE` names those that can be repeated for
minutes beside honest sessions.
"""

from __future__ import annotations

PREAMBLE = """
import json as _json, struct as _struct, time as _time
_kernel = get_ipython().kernel
_channel = _kernel.saving.channel

def _frame(header, payload=b"", announced=None):
    # One frame of the channel; `header` may be bytes that are no JSON, `announced` a length that is not sent.
    body = header if isinstance(header, bytes) else _json.dumps(header, separators=(",", ":")).encode()
    size = len(payload) if announced is None else announced
    _channel._sock.sendall(_struct.pack("!4sIQ", b"KRC1", len(body), size) + body + payload)

def _commit(**changes):
    # A commit that brings nothing, but for what is changed; `payload` are the bytes behind its header.
    payload = changes.pop("payload", b"")
    request = _kernel.get_parent()["header"]["msg_id"] if changes.pop("own", False) else "other"
    header = {
        "type": "commit", "commit": 0, "cause": "execution", "request": request, "outcome": None, "outputs_bytes": 0,
        "names": {}, "unsaved": {}, "deleted": [], "components": [], "closed": [], "magic": "", "failure": None,
        "missed": 0, "saved": {"created": [], "changed": [], "deleted": []},
    }
    _frame({**header, **changes}, payload)

def _part(path, value, of="commit"):
    # Some of a header that is still to come.
    _frame({"type": "part", "of": of, "path": path, "value": value})

def _component(**changes):
    whole = {"roots": [7_000_001], "references": [], "segments": [1], "code": False, "inert": True}
    return {**whole, **changes}

def _answered():
    # Waits until the keeper has answered a commit: what was sent before it has been read.
    _commit()
    _channel.recv()

def _raw(frame, times):
    # The same bytes again and again to whoever has connected to the kernel's sockets, past the library that has them.
    import os, socket
    own = _channel.fileno()
    for number in map(int, os.listdir("/proc/self/fd")):
        try:
            with socket.socket(fileno=os.dup(number)) as found:
                if number == own or found.family != socket.AF_UNIX:
                    continue
                found.settimeout(5)
                for _ in range(times):
                    found.sendall(frame)
        except (OSError, ValueError):
            pass

def _publish(kind, content=b"{}", metadata=b"{}", parent=None, header=None, more=()):
    # A signed message on the output socket, made of texts that nobody has looked at.
    session = _kernel.session
    about = session.msg_header(kind)
    about["date"] = "2020-01-01T00:00:00Z"
    parts = [
        _json.dumps(about).encode() if header is None else header,
        _json.dumps({"msg_id": _kernel.get_parent()["header"]["msg_id"]}).encode() if parent is None else parent,
        metadata, content,
    ]
    frames = [b"topic", b"<IDS|MSG>", session.sign(parts), *parts, *more]
    _kernel.iopub_socket.send_multipart(frames)
"""
"""What the code below is written with. Its names begin with an underscore."""

_LIES = {
    # 300 bytes that speak of 35 TB
    "segments of 2**45 bytes": "_commit(components=[_component(segments=[2**45], staged=True)]); _channel.recv()",
    "many segments of 2**45 bytes":
        "_commit(components=[_component(segments=[2**45] * 1000, staged=True)]); _channel.recv()",
    "a run of 2**45 chunks": "_commit(components=[_component(segments=[2**60], staged=True, runs=[[-1, 0, 2**42]])])",
    "a payload that never comes": "_frame({'type': 'stage', 'component': 0}, b'', 64 << 20); _time.sleep(1)",
    "components of staged pieces with any number":
        "for n in range(3000): _frame({'type': 'stage', 'component': n * 2**40 - 5}, b'x')\n_answered()",
    "slots that it never had": "for n in range(100_000): _frame({'type': 'emptied', 'slot': n % 4})",
}  # fmt: skip
"""Numbers that are not true."""

_WEIGHT = {
    # a component of 160,000 chunks that all are one chunk of the store
    "160,000 runs of one chunk": """
_big = b"r" * (256 << 10)
_channel_before = _kernel.saving._commits
_frame({"type": "stage", "component": 0}, _big)
_commit(components=[_component(segments=[256 << 10], staged=True)])
_channel.recv()
_runs = [[7_000_001, 0, 1]] * 160_000
_commit(components=[_component(segments=[256 << 10] * 160_000, staged=True, runs=_runs)])
_channel.recv()
""",
    "2,000,000 runs": """
_frame({"type": "stage", "component": 0}, b"r" * (256 << 10))
_commit(components=[_component(segments=[256 << 10], staged=True)])
_channel.recv()
_commit(components=[_component(roots=[7_000_002 + n], segments=[256 << 10] * 1000, staged=True,
        runs=[[7_000_001, 0, 1]] * 1000) for n in range(500)])
_channel.recv()
""",
    "a header of 1,900,000 objects": """
for _ in range(8):
    _frame(b'{"type":"begin","request":"","more":[' + b"{}," * 1_900_000 + b"{}]}")
_answered()
""",
    "a header of 15,000,000 numbers": """
for _ in range(4):
    _frame(b'{"type":"audited","more":[' + b"1," * 15_000_000 + b"1]}")
_answered()
""",
    "110,000 names that are lost, again and again": """
for _ in range(20):
    _lost = [{"name": f"name {n}", "type": "t", "reason": "r" * 100} for n in range(110_000)]
    _frame({"type": "loaded", "not_restored": _lost})
_answered()
""",
    "62,000 times loaded": """
for _ in range(62_000):
    _frame({"type": "loaded", "not_restored": [{"name": "n", "type": "t", "reason": "r"}]})
_answered()
""",
    "300,000 small frames": "for _ in range(300_000): _frame({'type': 'begin', 'request': 'x'})\n_answered()",
    "a commit of 190,000 names":
        "for k in range(6):\n"
        "    _commit(unsaved={f'n{n}': ['t', 'p', f'r{k}', ''] for n in range(190_000)}); _channel.recv()",
    "a commit that deletes 190,000 names":
        "for _ in range(6): _commit(deleted=[f'n{n}' for n in range(190_000)]); _channel.recv()",
    "a commit that closes 190,000 components":
        "for _ in range(6): _commit(closed=list(range(190_000))); _channel.recv()",
    "a component of 3,000,000 roots":
        "for _ in range(6): _commit(components=[_component(roots=list(range(3_000_000)), staged=True)]);"
        " _channel.recv()",
    "a component with 3,000,000 references":
        "for _ in range(6): _commit(components=[_component(references=[1] * 3_000_000, staged=True)]); _channel.recv()",
    "outputs of 7,000,000 lists in a commit":
        "_out = b'[{\"type\":\"display_data\",\"content\":{\"data\":{\"x\":[' + b'[],' * 7_000_000 + b'1]}}}]'\n"
        "_out = {'outputs_bytes': len(_out), 'payload': _out}\n"
        "_done = {'status': 'ok', 'execution_count': 1, 'duration_s': 0.1, 'error': None}\n"
        "_commit(own=True, outcome=_done, **_out); _channel.recv()",
    "outputs of 1,500,000 lists in UTF-16 in a commit":
        # A letter there has the byte of a quote: counted as bytes, all that follows is a text.
        "_out = '[{\"type\":\"display_data\",\"content\":{\"data\":{\"\u2200\":[' + '[],' * 1_500_000 + '1]}}}]'\n"
        "_out = {'outputs_bytes': 2 * len(_out), 'payload': _out.encode('utf-16-le')}\n"
        "_done = {'status': 'ok', 'execution_count': 1, 'duration_s': 0.1, 'error': None}\n"
        "_commit(own=True, outcome=_done, **_out); _channel.recv()",
    "parts of a commit of 190,000 names":
        "for n in range(0, 190_000, 2000):\n"
        "    _part(['unsaved'], {f'n{n + k}': ['t', 'p', 'r' * 60, ''] for k in range(2000)})\n_answered()",
    "parts of names with all that may be said of them":
        "for n in range(0, 20_000, 2):\n"
        "    _part(['unsaved'], {f'{n + k:0>1000}': ['\\U0001f600' * 2000] * 4 for k in range(2)})\n_answered()",
    "parts of a component without end":
        "_part(['components'], [_component(staged=True)])\n"
        "for n in range(2000): _part(['components', -1, 'roots'], list(range(n * 15_000, n * 15_000 + 15_000)))\n"
        "_answered()",
    "parts of components and saved names":
        "for n in range(200): _part(['components'], [_component(roots=[n * 1000 + k]) for k in range(1000)])\n"
        "_answered()",
    "parts of saved lists of 2,000,000 names":
        "for n in range(200): _part(['saved', 'created'], [f'{n}x{k}' for k in range(10_000)])\n_answered()",
    "parts of lists of 2,000,000 names that are lost":
        "for n in range(200):\n"
        "    _part(['not_restored'], [{'name': f'{n}x{k}', 'type': 't', 'reason': 'r' * 60} for k in range(1000)],"
        " 'loaded')\n"
        "_answered()",
    "saved lists of 2,000,000 names":
        "for _ in range(4): _commit(saved={'created': ['a'] * 2_000_000, 'changed': [], 'deleted': []});"
        " _channel.recv()",
}  # fmt: skip
"""More than anybody needs, in the channel."""

_SHOWN = {
    "21 MB of lists in a display":
        "_publish('display_data', b'{\"data\":{\"x\":[' + b'[],' * 7_000_000 + b'1]}}'); _time.sleep(2)",
    "1,500,000 lists in UTF-16 in a display":
        "_text = '{\"data\":{\"\u2200\":[' + '[],' * 1_500_000 + '1]}}'\n"
        "for _ in range(3): _publish('display_data', _text.encode('utf-16-le'))\n_time.sleep(2)",
    "metadata of 7,000,000 lists":
        "for _ in range(4): _publish('display_data', metadata=b'{\"x\":[' + b'[],' * 7_000_000 + b'1]}')\n"
        "_time.sleep(2)",
    "a parent of 7,000,000 lists":
        "for _ in range(4): _publish('display_data', parent=b'{\"x\":[' + b'[],' * 7_000_000 + b'1]}')\n"
        "_time.sleep(2)",
    "a message header of 7,000,000 lists":
        "for _ in range(4): _publish('x', header=b'{\"x\":[' + b'[],' * 7_000_000 + b'1]}')\n_time.sleep(2)",
    "one message of 400 parts of 10 MB":
        "_publish('display_data', more=[b'p' * (10 << 20)] * 400); _time.sleep(5)",
    "a message of 30 parts of 10 MB that never ends":
        "_raw(b'\\x03' + _struct.pack('>Q', 10 << 20) + bytes(10 << 20), 30)",
    "20 messages of 20 MB at once":
        "_raw(b'\\x02' + _struct.pack('>Q', 20 << 20) + bytes(20 << 20), 20)",
    "60 messages of 60 MB":
        "for _ in range(60): _publish('comm_msg', b'{\"data\":\"' + b'x' * (60 << 20) + b'\"}')\n_time.sleep(5)",
    "20,000 displays":
        "for _ in range(20_000): _publish('display_data', b'{\"data\":{\"text/plain\":\"x\"}}')\n_time.sleep(1)",
}  # fmt: skip
"""By way of what a cell shows."""

_PLAIN = {
    "2,000 names of 9,000 characters": "for _n in range(2000): globals()[f'n{_n}_' + 'x' * 9000] = _n",
    "300,000 names": "for _n in range(300_000): globals()[f'name_{_n}'] = _n",
}
"""What needs no forging at all."""

GROUPS = {"lies": _LIES, "weight": _WEIGHT, "shown": _SHOWN, "plain": _PLAIN}
PAYLOADS: dict[str, str] = {
    name: code if group == "plain" else PREAMBLE + code
    for group, found in GROUPS.items()
    for name, code in found.items()
}
BESIDE = (
    "segments of 2**45 bytes",
    "160,000 runs of one chunk",
    "a header of 1,900,000 objects",
    "110,000 names that are lost, again and again",
    "300,000 small frames",
    "parts of a commit of 190,000 names",
    "parts of names with all that may be said of them",
    "outputs of 7,000,000 lists in a commit",
    "21 MB of lists in a display",
    "60 messages of 60 MB",
    "2,000 names of 9,000 characters",
)
"""Those that a hostile session can send over and over."""
