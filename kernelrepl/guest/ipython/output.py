"""Output of a cell: sent to clients as it comes, and recorded so that it can be committed with the cell.

Streams send from the thread that flushes, without waiting for another one; an execution that prints
nothing costs nothing. What a cell may keep is bounded here already: the head of a flood goes out as it
comes, its tail at the end of the cell, the middle is counted and dropped. Runs in the kernel.
"""

from __future__ import annotations

import codecs
import contextlib
import fcntl
import io
import os
import select
import sys
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

from ipykernel.iostream import OutStream
from jupyter_client.session import Session

from kernelrepl.guest import wire
from kernelrepl.guest.display import bundles

HEAD_CHARS = 500_000
TAIL_CHARS = 500_000
DISPLAY_BYTES = 16 << 20
MOST_DISPLAYS = 5_000
"""The most displays of one cell."""
MOST_VALUES = 250_000
"""The most numbers, texts and so on in the JSON of the displays of one cell."""
NAME_CHARS = 200
ROW_CHARS = 2_000
MESSAGE_CHARS = 100_000
_TRACE_CHARS = 1_000_000
_READ_BYTES = 64 << 10
_KEPT_FROM = 100
_BETWEEN = "[printed since the last call]\n"


def reserve_descriptors() -> None:
    """Have the table of descriptors grow while there is one thread: with more the system waits for all of them."""
    os.close(fcntl.fcntl(0, fcntl.F_DUPFD_CLOEXEC, _KEPT_FROM))


class OutputRecorder:
    """The outputs of the cell that runs now, bounded. Used from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._messages: list[dict[str, Any]] = []
        self.start()

    def start(self) -> None:
        """A new cell. What threads and children printed since the last one was taken belongs to it."""
        with self._lock:
            for message in self._messages:
                if message["type"] == "stream":
                    message["content"]["text"] = _BETWEEN + message["content"]["text"]
            self._head_room = HEAD_CHARS
            self._tail: deque[tuple[str, str]] = deque()
            self._tail_chars = 0
            self._dropped = 0
            self._display_room = DISPLAY_BYTES
            self._displays = self._values = 0

    def stream(self, name: str, text: str) -> str:
        """Record text of a stream; returns the part of it that may be sent now."""
        with self._lock:
            now, later = text[: self._head_room], text[self._head_room :]
            self._head_room -= len(now)
            if now:
                self._append_stream(name, now)
            if later:
                self._keep_tail(name, later)
            return now

    def _append_stream(self, name: str, text: str) -> None:
        last = self._messages[-1] if self._messages else None
        if last is not None and last["type"] == "stream" and last["content"]["name"] == name:
            last["content"]["text"] += text
        else:
            self._messages.append({"type": "stream", "content": {"name": name, "text": text}})

    def _keep_tail(self, name: str, text: str) -> None:
        self._tail.append((name, text[-TAIL_CHARS:]))
        self._dropped += max(0, len(text) - TAIL_CHARS)
        self._tail_chars += min(len(text), TAIL_CHARS)
        while self._tail_chars > TAIL_CHARS:
            first_name, first = self._tail.popleft()
            extra = min(self._tail_chars - TAIL_CHARS, len(first))
            self._dropped += extra
            self._tail_chars -= extra
            if extra < len(first):
                self._tail.appendleft((first_name, first[extra:]))

    def take_tail(self) -> list[tuple[str, str]]:
        """The held-back end of a flood, with a line that says what is missing; recorded as well."""
        with self._lock:
            if not self._tail:
                return []
            parts = list(self._tail)
            if self._dropped:
                parts.insert(0, (parts[0][0], f"\n[… {self._dropped} characters cut …]\n"))
            self._tail.clear()
            self._tail_chars = self._dropped = 0
            for name, text in parts:
                self._append_stream(name, text)
            return parts

    def message(self, kind: str, content: dict[str, Any]) -> None:
        with self._lock:
            self._displays += 1
            if self._displays > MOST_DISPLAYS:
                if self._displays == MOST_DISPLAYS + 1:
                    text = f"[the other displays are left out: one cell may show {MOST_DISPLAYS:,}]\n"
                    self._append_stream("stderr", text)
                return
            forms = content.get("data", {})
            reply = forms.get(wire.REPLY) if isinstance(forms, dict) else None
            size, small = self._weigh(forms), _weigh(reply, 0)[0]
            limit = f"the outputs of one cell may take {DISPLAY_BYTES >> 20} MB"
            if self._values > MOST_VALUES:
                limit = f"the JSON that one cell shows may hold {MOST_VALUES:,} values"
            if size > self._display_room or self._values > MOST_VALUES:
                text = f"[an output of {size} bytes was left out: {limit}]"
                content = {**content, "data": {"text/plain": text}}
                if reply and small <= self._display_room:
                    content["data"][wire.REPLY] = {**reply, "text": text}
                    size = small
            self._display_room -= size
            self._messages.append({"type": kind, "content": content})

    def _weigh(self, forms: Any) -> int:
        size = 0
        for form in forms.values() if isinstance(forms, dict) else ():
            more, self._values = (len(form), self._values) if isinstance(form, str) else _weigh(form, self._values)
            size += more
        return size

    def take(self) -> list[dict[str, Any]]:
        with self._lock:
            messages, self._messages = self._messages, []
            return messages


class RecordingSession(Session):
    """A Jupyter session that records the outputs which pass through it."""

    recorder: OutputRecorder | None = None

    def send(self, stream: Any, msg_or_type: Any, content: Any = None, *args: Any, **kwargs: Any) -> Any:
        message = msg_or_type if isinstance(msg_or_type, dict) else None
        kind = msg_or_type if message is None else message["header"]["msg_type"]
        content = content if message is None else message["content"]
        _shorten_error(content)
        if kind in bundles.KINDS:
            content = bundles.complete(kind, content or {}, self.pack)
            if self.recorder is not None:
                self.recorder.message(kind, content)
        try:
            return self._send(stream, message, kind, content, *args, **kwargs)
        except UnicodeEncodeError:  # lone surrogates, in a reply
            return self._send(stream, message, kind, bundles.encodable_json(content), *args, **kwargs)

    def _send(self, stream: Any, message: dict[str, Any] | None, kind: str, content: Any, *args: Any, **kw: Any) -> Any:
        if message is None:
            return super().send(stream, kind, content, *args, **kw)
        message["content"] = content
        return super().send(stream, message, None, *args, **kw)


def _shorten_error(content: Any) -> None:
    """Bound the words of an error, in a message and in a reply, and make them such as can be sent."""
    if not isinstance(content, dict) or not isinstance(content.get("ename"), str):
        return
    content["ename"] = bundles.encodable(shortened(content["ename"], NAME_CHARS))
    content["evalue"] = bundles.encodable(shortened(str(content.get("evalue", "")), MESSAGE_CHARS))
    lines, budget_chars = [], _TRACE_CHARS
    for line in content.get("traceback") or ():
        lines.append(bundles.encodable(shortened(str(line), max(budget_chars, NAME_CHARS))))
        budget_chars -= len(lines[-1])
        if budget_chars <= 0:
            break
    content["traceback"] = lines


def shortened(text: str, most: int) -> str:
    """The head and the end of a text, and between them how much is missing."""
    if len(text) <= most:
        return text
    missing = f"[… {len(text)} characters …]"
    half = (most - len(missing)) // 2
    return text[:half] + missing + text[-half:]


def _weigh(value: Any, values: int) -> tuple[int, int]:
    """About how many bytes the JSON of a value takes, and how many values there are with those counted before.

    Counts no further than MOST_VALUES.
    """
    size, work = 0, [value]
    while work and values <= MOST_VALUES:
        found = work.pop()
        values += 1
        size += len(found) + 2 if isinstance(found, str) else 8
        if isinstance(found, dict):
            work += found.keys()
            work += found.values()
        elif isinstance(found, list | tuple):
            work += found
    return size, values


class GuestStream(OutStream):
    """stdout or stderr of the kernel, file descriptor included."""

    def __init__(self, session: RecordingSession, pub_thread: Any, name: str, recorder: OutputRecorder) -> None:
        self._flush_lock = threading.RLock()
        self._recorder = recorder
        self._pipe: int | None = None
        self.descriptor = -1
        self._bytes = _ByteSink(self)
        super().__init__(session, pub_thread, name, watchfd=False)

    def watch(self, descriptor: int) -> None:
        """Take over a file descriptor: what C code or a child process writes to it is output as well, after `start`."""
        read_end, write_end = os.pipe()
        self._original_stdstream_copy = os.dup(descriptor)
        os.dup2(write_end, descriptor)
        # One is kept where nobody looks: the pipe stays open, and can be put back, when a cell closes the descriptor.
        self._write_end = fcntl.fcntl(write_end, fcntl.F_DUPFD_CLOEXEC, _KEPT_FROM)
        os.close(write_end)
        self.descriptor = descriptor
        os.set_blocking(read_end, False)
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._pipe = read_end

    def start(self) -> None:
        """Begin to read there."""
        threading.Thread(target=self._watch, name=f"{self.name} pipe", daemon=True).start()

    def put_back(self) -> bool:
        """Open the file descriptor again if a cell closed it; whether it had to be."""
        try:
            os.fstat(self.descriptor)
        except OSError:
            os.dup2(self._write_end, self.descriptor)
            return True
        return False

    @property
    def log_descriptor(self) -> int:
        """What the file descriptor was before: the log of the kernel."""
        return int(self._original_stdstream_copy)

    # What Python's own standard streams can do as well

    def fileno(self) -> int:
        """The descriptor itself: what a child process writes to it is output."""
        return self.descriptor

    def close(self) -> None:
        """The stream belongs to the session and stays open."""
        if not sys.is_finalizing():
            self.flush()

    def reconfigure(self, **options: Any) -> None:
        """There is nothing to choose: it is UTF-8, and sent at once or soon."""

    @property
    def buffer(self) -> io.RawIOBase:
        return self._bytes

    def write(self, string: str) -> int | None:
        if not self._is_master_process() and isinstance(string, str):
            # A forked child has no sockets and no threads, but the pipe.
            data = memoryview(string.encode(errors="replace"))
            while data:
                data = data[os.write(self.descriptor, data) :]
            return len(string)
        written: int | None = super().write(string)
        return written

    def _watch(self) -> None:
        poll = select.poll()
        pipe = self._pipe
        assert pipe is not None
        poll.register(pipe, select.POLLIN)
        while self._pipe is not None:
            poll.poll()
            with self._flush_lock:
                if not self._drain():
                    return

    def _drain(self) -> bool:
        """Move what is in the pipe into the stream. Called with the lock, from either side."""
        if self._pipe is None:
            return False
        try:
            data = os.read(self._pipe, _READ_BYTES)
        except BlockingIOError:
            return True
        if not data:
            return False
        text = self._decoder.decode(data)
        if text:
            self.write(text)
        return True

    @contextlib.contextmanager
    def _locked(self) -> Iterator[bool]:
        """Hold the lock; whether it is held. The sending thread gets it only if that needs no waiting.

        Who holds it may be waiting for that very thread: a send to it blocks while its queue is full.
        """
        waits = self.pub_thread is None or threading.current_thread() is not self.pub_thread.thread
        held = self._flush_lock.acquire(blocking=waits)
        try:
            yield held
        finally:
            if held:
                self._flush_lock.release()

    def flush(self) -> None:
        """Send what was written. Does not wait: the order of messages of one process is kept anyway."""
        if not self._is_master_process():
            return
        with self._locked() as held:
            if held and self._pipe is not None:
                while select.select([self._pipe], [], [], 0)[0] and self._drain():
                    pass
            if self._buffers:
                self._flush()

    def _flush(self) -> None:
        with self._locked() as held:
            if not held:
                self._io_loop.call_later(self.flush_interval, self._flush)
                return
            self._flush_pending = False
            self._subprocess_flush_pending = False
            if self.pub_thread is None:
                return
            for parent, data in self._flush_buffers():
                text = self._recorder.stream(self.name, bundles.encodable(data))
                if text:
                    self._publish(parent, text)

    def publish_tail(self, parent: dict[str, Any], text: str) -> None:
        with self._flush_lock:
            self._publish(parent, text)

    def _publish(self, parent: dict[str, Any], text: str) -> None:
        self.session.pid = os.getpid()
        self.session.send(self.pub_thread, "stream", {"name": self.name, "text": text}, parent=parent, ident=self.topic)


class _ByteSink(io.RawIOBase):
    """`sys.stdout.buffer`. Bytes that are no UTF-8 become replacement characters."""

    def __init__(self, stream: GuestStream) -> None:
        self._stream = stream
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        self._stream.write(self._decoder.decode(view))
        return view.nbytes

    def flush(self) -> None:
        self._stream.flush()

    def close(self) -> None:
        """It stays open, also when a text stream that was put around it goes."""


def flush_cell(streams: Sequence[GuestStream], recorder: OutputRecorder, parent: dict[str, Any]) -> None:
    """At the end of a cell: everything it printed is sent and recorded, the end of a flood included."""
    for stream in streams:
        if stream.pub_thread is not None:
            stream.flush()
    by_name = {stream.name: stream for stream in streams}
    for name, text in recorder.take_tail():
        stream = by_name[name]
        if stream.pub_thread is not None:
            stream.publish_tail(parent, text)
