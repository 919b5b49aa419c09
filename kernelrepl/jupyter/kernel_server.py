"""The Jupyter protocol of one session, served by the keeper: it outlives every kernel of the session.

Executions go the way of all others, so that they are committed and recorded; what else clients ask goes to the kernel
in turn with them. Each client has a queue of its own: an error of one aborts no cell of another. What the kernel shows
comes to all clients, without what could act there, unless a person trusts the session.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import deque
from collections.abc import Coroutine
from typing import Any

from kernelrepl.errors import KernelReplError
from kernelrepl.jupyter import replies
from kernelrepl.jupyter.iopub import COMMS, HEADER, IOPub
from kernelrepl.jupyter.replies import Answer, failed
from kernelrepl.jupyter.sockets import KernelSockets
from kernelrepl.kernel import KernelDied
from kernelrepl.model import ExecutionResult, JupyterRequest
from kernelrepl.outputs import remarks, sanitize
from kernelrepl.outputs.notebook import encodable
from kernelrepl.outputs.terminal_text import output
from kernelrepl.sessions.execution import Execution
from kernelrepl.sessions.handle import ExecutionHandle
from kernelrepl.sessions.manager import Manager, Origin
from kernelrepl.sessions.session import Session
from kernelrepl.store import Store
from kernelrepl.validation import check_code

_log = logging.getLogger("kernelrepl")
MAX_PROMPT = 10_000
_NOTICE_S = 0.1
"""Between the end of a kernel and the news of it: a cell that ran in it is answered first."""


class Client:
    """One client of a session: a notebook, a console. Known by where it is connected, and as whom."""

    def __init__(self, sockets: KernelSockets, identity: bytes) -> None:
        self.sockets = sockets
        self.identity = identity
        self.queue: deque[JupyterRequest] = deque()
        self.work: asyncio.Task[None] | None = None
        self.running: ExecutionHandle | None = None
        self.asking: tuple[Session, JupyterRequest, asyncio.Future[Any]] | None = None
        self.asked = False
        """Its code waits for what a person types."""

    def reply(self, request: JupyterRequest, answer: Answer, channel: str = "shell") -> None:
        kind = request.kind.replace("_request", "_reply")
        self.sockets.reply(channel, self.identity, kind, answer.content, request.header, answer.metadata)


class KernelServer:
    """Of one session."""

    def __init__(self, session_id: str, manager: Manager, store: Store, origin: Origin, *, trusted: bool) -> None:
        self.session_id = session_id
        self.iopub = IOPub(session_id, trusted=trusted)
        self.attaching = 0
        """How many clients are about to be attached."""
        self._manager = manager
        self._store = store
        self._origin = origin
        self._clients: dict[tuple[KernelSockets, bytes], Client] = {}
        self._owners: dict[str, tuple[Client, JupyterRequest]] = {}
        """Whose the executions are that are under way, by msg_id."""
        self._restarting: set[KernelSockets] = set()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._version = ""

    # What clients ask

    def take(self, sockets: KernelSockets, channel: str, identity: bytes, request: JupyterRequest) -> None:
        """A request has come in."""
        client = self._clients.get((sockets, identity)) or Client(sockets, identity)
        match request.kind:
            case "kernel_info_request":
                with self.iopub.busy(request.header, sockets):
                    client.reply(request, replies.kernel_info(self.session_id, self._version), channel)
            case "input_reply":
                self._pass_input(client, request)
            case "interrupt_request":
                self._spawn(self.interrupt(sockets, identity))
                client.reply(request, Answer({"status": "ok"}), channel)
            case "shutdown_request":
                # The session is not this client's to end: it only leaves.
                restart = request.content.get("restart") is True
                client.reply(request, Answer({"status": "ok", "restart": restart}), channel)
                sockets.leave()
            case _ if channel == "control":
                client.reply(request, replies.unsupported(request.kind), channel)
            case _ if channel == "shell":
                self._queue(client, request)

    def _queue(self, client: Client, request: JupyterRequest) -> None:
        self._clients[client.sockets, client.identity] = client
        client.queue.append(request)
        if client.work is None:
            client.work = asyncio.create_task(self._serve(client))

    async def _serve(self, client: Client) -> None:
        """Work off what a client has asked, in its order."""
        try:
            while client.queue:
                request = client.queue.popleft()
                with self.iopub.busy(request.header):
                    try:
                        answer = await self._handle(client, request)
                    except (KernelReplError, KernelDied) as error:
                        answer = self._refuse(request, error)
                    except Exception as error:  # noqa: BLE001 - without an answer the client would wait for ever
                        _log.exception("a request of a Jupyter client failed")
                        answer = self._refuse(request, KernelReplError(f"internal error: {error!r}; see the log"))
                    if request.kind not in COMMS:
                        answer = answer or failed("NoReply", f"the kernel has no answer to this {request.kind}")
                        client.reply(request, answer)
                if answer is not None and answer.content.get("status") == "error":
                    self._abort(client, request)
        finally:
            client.work = None
            if not self.iopub.watches(client):
                self._clients.pop((client.sockets, client.identity), None)

    def _abort(self, client: Client, request: JupyterRequest) -> None:
        """After an error the cells that the same client has sent already do not run, if it wants that."""
        if request.kind != "execute_request" or request.content.get("stop_on_error", True) is not True:
            return
        self._drop_cells(client)

    def _drop_cells(self, client: Client) -> None:
        waiting, client.queue = client.queue, deque()
        for other in waiting:
            if other.kind == "execute_request":
                with self.iopub.busy(other.header):
                    client.reply(other, Answer({"status": "aborted"}))
            else:
                client.queue.append(other)

    async def _handle(self, client: Client, request: JupyterRequest) -> Answer | None:
        match request.kind:
            case "execute_request":
                return await self._execute(client, request)
            case "history_request":
                found = await self._store.find_session(self.session_id)
                inputs = [] if found is None else await self._store.inputs(found[0].key, replies.MAX_HISTORY)
                return replies.history(inputs, request.content)
            case "comm_info_request" if not self.iopub.trusted or self.session_id not in self._manager.kernels():
                return Answer({"status": "ok", "comms": {}})
            case kind if kind in replies.PASSED_ON:
                if kind in COMMS and not self.iopub.trusted:
                    return None
                return await self._ask(client, request)
            case kind:
                return replies.unsupported(kind)

    async def _ask(self, client: Client, request: JupyterRequest) -> Answer | None:
        session = await self._manager.session(self.session_id, self._origin)
        asked = _known(request)
        asking = asyncio.ensure_future(session.ask(asked))
        client.asking = session, asked, asking
        try:
            message = await asking
        except asyncio.CancelledError:
            if asking.cancelled() and client.work is not None and not client.work.cancelling():
                return Answer({"status": "aborted"})  # it was withdrawn before its turn came
            raise
        finally:
            client.asking = None
            self._version = session.python or self._version
        return None if message is None else self._answer(message)

    def _answer(self, message: dict[str, Any]) -> Answer:
        content = message["content"]
        if not self.iopub.trusted:
            kind = message["type"]
            content = sanitize.reply(content) if kind == "execute_reply" else sanitize.answer(kind, content)
        started = message["metadata"].get("started")
        return Answer(content, {"started": started} if isinstance(started, str) else {})

    # Executions

    async def _execute(self, client: Client, request: JupyterRequest) -> Answer | None:
        content, code = request.content, request.content.get("code")
        if not isinstance(code, str):
            return failed("InvalidArgument", "an execute_request has its code as text")
        if command := replies.command(code):
            return await self._command(client, request, command)
        asked = {
            "code": code,
            "silent": content.get("silent") is True,
            "store_history": content.get("store_history", True) is not False,
            "user_expressions": content.get("user_expressions") or {},
            "allow_stdin": content.get("allow_stdin") is True,
            "stop_on_error": False,  # queues are ours
        }
        cell = JupyterRequest(request.kind, request.header, asked, request.metadata)
        self._owners[request.msg_id] = client, cell
        try:
            check_code(code)
            if asked["silent"] or not asked["store_history"] or not code.strip():
                return await self._ask(client, cell)
            client.running = handle = await self._manager.execute(
                code, self.session_id, self._origin, request_id=f"jupyter-{secrets.token_hex(12)}", cell=_known(cell)
            )
            await handle.execution.over.wait()
            self._version = handle.python or self._version
            return self._conclude(request, handle.result(), handle.execution.reply)
        finally:
            client.running, client.asked = None, False
            self._owners.pop(request.msg_id, None)

    def _conclude(self, request: JupyterRequest, result: ExecutionResult, reply: dict[str, Any] | None) -> Answer:
        """Say what is to be said beside the output, and make the reply. reply: the kernel's own, if there is one."""
        answer = None if reply is None else self._answer(reply)
        if answer is None:
            error = result.output.error
            if error is None:
                return Answer({"status": "aborted"})  # it was stopped before it began
            answer = failed(error.name, error.message, error.traceback)
            self.iopub.publish("error", _error(answer), request.header)
        if lines := remarks.for_notebook(result):
            self.iopub.publish("stream", {"name": "stderr", "text": "\n".join([*lines, ""])}, request.header)
        return answer

    def _refuse(self, request: JupyterRequest, error: Exception) -> Answer:
        """It could not be done, and the reason is nothing that the code did."""
        answer = failed(type(error).__name__, str(error))
        if request.kind == "execute_request":
            self.iopub.publish("error", _error(answer), request.header)
        return answer

    async def _command(self, client: Client, request: JupyterRequest, command: str) -> Answer:
        """`%kernelrepl …`: what a person asks about the session itself; `exit`: a console leaves it."""
        found = await self._store.find_session(self.session_id)
        info = None if found is None else found[0]
        count = 0 if info is None else info.execution_count
        self.iopub.publish("execute_input", {"code": request.content["code"], "execution_count": count}, request.header)
        payload: list[dict[str, Any]] = []
        if command == "watch":
            self.iopub.watch(client, client.sockets, request.header)
            text = "what others run in this session is shown here from now on; %kernelrepl unwatch ends it"
        elif command == "unwatch":
            self.iopub.unwatch(client)
            text = "what others run is not shown any more"
        elif command == replies.LEAVE:
            text = "the session goes on with all its variables"
            payload.append({"source": "ask_exit", "keepkernel": True})
        else:
            trusted = self.iopub.trusted
            text = await replies.tell(command, self._manager, self.session_id, self._origin, info, trusted)
        self.iopub.publish("stream", {"name": "stdout", "text": text + "\n"}, request.header)
        return Answer({"status": "ok", "execution_count": count, "payload": payload, "user_expressions": {}})

    def _pass_input(self, client: Client, request: JupyterRequest) -> None:
        value = request.content.get("value")
        at_work = client.running or (client.asking and client.asking[0])
        if at_work is not None and isinstance(value, str):
            client.asked = False
            at_work.answer(value)

    async def interrupt(self, sockets: KernelSockets, identity: bytes | None = None) -> None:
        """Stop what this client runs and what it has waiting, or all clients there; never what others run."""
        known = identity is not None and sockets.knows(identity)
        for client in list(self._clients.values()):
            if client.sockets is not sockets or (known and client.identity != identity):
                continue
            self._drop_cells(client)
            self._withdraw(client)
            self._stop(client)

    def _stop(self, client: Client) -> None:
        if client.running is not None:
            self._spawn(client.running.interrupt())
        elif client.asking is not None:
            session, asked, _ = client.asking
            session.interrupt_asked(asked)

    def _withdraw(self, client: Client) -> None:
        """What it has asked, and has not had its turn yet."""
        if client.asking is not None and client.asking[0].asked is not client.asking[1]:
            client.asking[2].cancel()

    async def withdraw(self) -> None:
        """What waits for its turn does not run any more: clients forget it at a restart."""
        for client in list(self._clients.values()):
            self._drop_cells(client)
            self._withdraw(client)
            if client.running is not None and client.running.execution.is_waiting:
                await client.running.interrupt()

    async def restart(self, sockets: KernelSockets) -> None:
        """A new kernel with all that is stored, for all who are attached. The one who asks knows."""
        self._restarting.add(sockets)
        try:
            await self.withdraw()
            session = await self._manager.session(self.session_id, self._origin)
            await session.restart()
            self._version = session.python
            await asyncio.sleep(_NOTICE_S)
        finally:
            self._restarting.discard(sockets)

    # What goes on in the session

    def began(self, execution: Execution) -> None:
        if execution.msg_id not in self._owners:
            self.iopub.began(execution)

    def ended(self, execution: Execution) -> None:
        self.iopub.ended(execution)

    def published(self, message: dict[str, Any]) -> None:
        """What a kernel shows, or asks."""
        if message["type"] == "input_request":
            self._pass_question(message)
        elif message["type"] != "status":  # a kernel may end before it says that it is idle: we say it
            owner, request = self._owners.get(message["parent"], (None, None))
            self.iopub.show(message, owner, None if request is None else request.header)

    def deleted(self) -> None:
        self.iopub.trusted = False
        self.restarted()

    def _pass_question(self, message: dict[str, Any]) -> None:
        owner, request = self._owners.get(message["parent"], (None, None))
        if owner is None or request is None or request.content["allow_stdin"] is not True:
            return
        owner.asked = True
        content = message["content"]
        prompt = output(str(content.get("prompt", ""))[:MAX_PROMPT])
        asked = {"prompt": prompt, "password": content.get("password") is True}
        owner.sockets.reply("stdin", owner.identity, "input_request", asked, request.header)

    def restarted(self) -> None:
        asyncio.get_running_loop().call_later(_NOTICE_S, self.iopub.tell_restart, frozenset(self._restarting))

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def forget(self, sockets: KernelSockets) -> None:
        """Nobody comes in there any more. What its clients run, runs on, unless it waits for one of them to type."""
        self.iopub.all_sockets.discard(sockets)
        for key, client in list(self._clients.items()):
            if key[0] is sockets:
                client.queue.clear()
                if client.asked:
                    self._stop(client)
                self.iopub.unwatch(client)
                del self._clients[key]

    async def close(self) -> None:
        for task in [*self._tasks, *(client.work for client in self._clients.values() if client.work is not None)]:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def _known(request: JupyterRequest) -> JupyterRequest:
    """A request for a kernel: of its header what the protocol knows, and nothing that cannot be encoded."""
    # The date is left out: a kernel does not take a message whose date is none.
    names = [name for name in HEADER if name != "date" and isinstance(request.header.get(name), str)]
    cell = request.metadata.get("cellId")
    # The kernel shows some things to people in another way than to agents.
    metadata = {"kernelrepl": {}, **({"cellId": cell} if isinstance(cell, str) else {})}
    header = encodable({name: request.header[name] for name in names})
    return JupyterRequest(request.kind, header, encodable(dict(request.content)), encodable(metadata), request.buffers)


def _error(answer: Answer) -> dict[str, Any]:
    return {name: answer.content[name] for name in ("ename", "evalue", "traceback")}
