#!/usr/bin/env python3
"""A MultiNodes worker in Python: no packages, Python 3.8 or later. Copy it and replace the example at the end.

    multinodes start --serve "demo=python3 examples/workers/worker.py"
    multinodes call demo add 1 2

Whatever is printed goes to the node's log. The protocol is in README.md beside this file.
"""

import collections
import inspect
import json
import os
import select
import sys
import time
import traceback


class Failure(Exception):
    """An error for the caller: a code for programs, a message for people, and any data."""

    def __init__(self, code, message, data=None):
        super().__init__(message)
        self.code, self.message, self.data = code, message, data


class Refusal(Failure):
    """Says that nothing of the request was done. Codes: `no_such_action`, `bad_arguments`, `forbidden`, `busy`."""


class Cancelled(Exception):
    """The caller has lost interest, or its deadline is over: stop the work and clean up."""


class Worker:
    """Answers one request after the other. Single-threaded: a handler has the process for itself."""

    def __init__(self, description=None, version=None):
        self._description, self._version = description, version
        self._actions, self._idempotent, self._on_tell = {}, [], None
        self._buffer, self._asked = bytearray(), 0
        self._pending, self._cancelled = collections.deque(), set()
        self._in = self._out = None

    def action(self, handler):
        """Decorates a handler `def name(request, ...)`: its name is the action, what it returns the result."""
        self._actions[handler.__name__] = handler
        return handler

    def idempotent_action(self, handler):
        """As `action`, and may run twice without harm: if this host is lost meanwhile, another one does it."""
        self._idempotent.append(handler.__name__)
        return self.action(handler)

    def on_tell(self, handler):
        """Decorates the handler `def name(request, message)` of messages that nobody waits for."""
        self._on_tell = handler
        return handler

    def run(self):
        """Works until the node closes our stdin."""
        # The pipes are ours alone: prints go to the log, and no child process reads our requests.
        self._in, self._out = os.dup(0), os.dup(1)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(2, 1)
        self.describe(
            description=self._description,
            version=self._version,
            actions=sorted(self._actions),
            idempotent=sorted(self._idempotent),
        )
        while True:
            message = self._receive()
            if "cancel" in message:
                # It came too late: the request is answered already.
                self._cancelled.clear()
            elif "id" in message:
                self._send(self._answer(Request(self, message), message))

    def call(self, app, action, *args, node=None, timeout=None):
        """Runs an action of an application anywhere in the swarm. Within a request, use `request.call`."""
        return self._ask("call", {"app": app, "action": action, "args": args}, node, timeout)

    def tell(self, app, message, node=None, timeout=None):
        """Hands a message to an application anywhere in the swarm. Within a request, use `request.tell`."""
        self._ask("tell", {"app": app, "message": message}, node, timeout)

    def describe(self, **what):
        """Changes what the swarm knows of this application: `description`, `version`, `actions`, `idempotent`."""
        self._send({"describe": {key: value for key, value in what.items() if value is not None}})

    def _answer(self, request, message):
        try:
            if "message" in message:
                if self._on_tell is None:
                    raise Refusal("no_such_action", "it takes no tells")
                self._on_tell(request, message["message"])
                return {"id": request.id, "result": None}
            handler = self._actions.get(message["action"])
            if handler is None:
                raise Refusal("no_such_action", message["action"])
            args = message["args"]
            try:
                result = handler(request, *args)
            except TypeError as error:
                check_arguments(handler, request, args)
                raise error
            return {"id": request.id, "result": result}
        except Failure as failure:
            error = {"code": failure.code, "message": failure.message}
            if isinstance(failure, Refusal):
                error["refused"] = True
            if failure.data is not None:
                error["data"] = failure.data
        except Cancelled:
            error = {"code": "cancelled", "message": "cancelled"}
        except Exception as failure:
            traceback.print_exc()
            error = {"code": "exception", "message": f"{type(failure).__name__}: {failure}"}
        finally:
            self._cancelled.discard(request.id)
        return {"id": request.id, "error": error}

    def _ask(self, kind, question, node, timeout, within=None):
        self._asked += 1
        question["id"] = self._asked
        if node is not None:
            question["node"] = node
        if timeout is not None:
            question["timeout_ms"] = round(timeout * 1000)
        if within is not None:
            question["for"] = within.id
        self._send({kind: question})
        while True:
            if within is not None:
                within.check()
            message = self._receive()
            if message.get(kind) == question["id"]:
                if "error" in message:
                    error = message["error"]
                    raise Failure(error["code"], error["message"], error.get("data"))
                return message["result"]

    def _send(self, message):
        # The node refuses what is not JSON: NaN, the infinities, and half a character, which the encoding finds.
        try:
            line = json.dumps(message, allow_nan=False, ensure_ascii=False, separators=(",", ":")).encode()
        except (TypeError, ValueError, RecursionError) as failure:
            if "id" not in message or "progress" in message:
                raise
            error = {"code": "exception", "message": f"the result is not JSON: {ascii(str(failure))}"}
            line = json.dumps({"id": message["id"], "error": error}).encode()
        self._write(line + b"\n")

    def _write(self, line):
        while line:
            line = line[os.write(self._out, line) :]

    def _receive(self):
        """Waits for the next message."""
        return self._pending.popleft() if self._pending else self._read()

    def _read(self):
        """Waits for the next line. A cancelled request is remembered."""
        searched = 0
        while True:
            end = self._buffer.find(b"\n", searched)
            if end >= 0:
                line = bytes(self._buffer[:end])
                del self._buffer[: end + 1]
                message = json.loads(line)
                if "cancel" in message:
                    self._cancelled.add(message["cancel"])
                return message
            searched = len(self._buffer)
            chunk = os.read(self._in, 1 << 18)
            if not chunk:
                sys.exit(0)
            self._buffer += chunk

    def _is_cancelled(self, id):
        while id not in self._cancelled:
            if b"\n" not in self._buffer and not select.select([self._in], [], [], 0)[0]:
                return False
            message = self._read()
            if "cancel" not in message:
                self._pending.append(message)
        return True


class Request:
    """What is known of the request that a handler works on."""

    def __init__(self, worker, message):
        self._worker = worker
        self.id, self.caller = message["id"], message["caller"]
        left = message.get("deadline_ms")
        self.deadline = None if left is None else time.monotonic() + left / 1000

    def remaining(self):
        """Seconds until nobody waits for the answer any more; `None` if nobody waits anyway."""
        return None if self.deadline is None else self.deadline - time.monotonic()

    def cancelled(self):
        """Whether to stop. A handler that takes long asks now and then; else the process is killed."""
        return self._worker._is_cancelled(self.id)

    def check(self):
        """Raises `Cancelled` if it is time to stop."""
        if self.cancelled():
            raise Cancelled()

    def progress(self, value):
        """Tells the caller how far the work is. Raises `Cancelled` if it is time to stop."""
        self._worker._send({"id": self.id, "progress": value})
        self.check()

    def call(self, app, action, *args, node=None, timeout=None):
        """Runs an action of another application, within the time of this request."""
        return self._worker._ask("call", {"app": app, "action": action, "args": args}, node, timeout, self)

    def tell(self, app, message, node=None, timeout=None):
        """Hands a message to another application, within the time of this request."""
        self._worker._ask("tell", {"app": app, "message": message}, node, timeout, self)


def check_arguments(handler, request, args):
    """Raises a `Refusal` if `handler` does not take `args`."""
    try:
        inspect.signature(handler).bind(request, *args)
    except TypeError as error:
        raise Refusal("bad_arguments", str(error)) from None


# --- the example: replace it with your own ---

worker = Worker(description={"language": "python"}, version="1.0.0")


@worker.idempotent_action
def add(request, a, b):
    return a + b


@worker.idempotent_action
def divide(request, a, b):
    if b == 0:
        raise Failure("division_by_zero", f"{a} cannot be divided by {b}", {"dividend": a})
    return a / b


@worker.action
def count(request, to, seconds=0.0):
    """Says how far it is, and stops when nobody waits any more."""
    for number in range(1, to + 1):
        request.progress(number)
        time.sleep(seconds)
    return to


@worker.action
def relay(request, app, action, *args):
    """Calls another application, and tells `journal` of it if somebody hosts one."""
    result = request.call(app, action, *args)
    try:
        request.tell("journal", f"{app}.{action} = {result}", timeout=1)
    except Failure as failure:
        print(f"no journal: {failure.message}")
    return result


@worker.action
def describe(request, description):
    """Changes what others see of this application."""
    worker.describe(description=description)


told = []


@worker.on_tell
def remember(request, message):
    print(f"told by {request.caller}: {message}")
    told.append(message)


@worker.action
def recall(request):
    return told


if __name__ == "__main__":
    worker.run()
