"""The Python skeleton with actions that misbehave. MULTINODES_SKELETONS is the folder of the skeletons."""

import os
import sys
import time

sys.path.insert(0, os.environ["MULTINODES_SKELETONS"])
sys.dont_write_bytecode = True

from worker import Failure, worker


@worker.action
def process(request):
    return os.getpid()


@worker.action
def complain(request, text):
    print(text)


@worker.action
def leave(request, code):
    print("leaving now", file=sys.stderr, flush=True)
    os._exit(code)


@worker.idempotent_action
def frail(request, path):
    """Ends the first worker that it meets."""
    try:
        with open(path, "x") as file:
            file.write(str(os.getpid()))
    except FileExistsError:
        return os.getpid()
    os._exit(1)


@worker.action
def babble(request):
    worker._write(b'hello\n[7, 3]\n7\n\n{"id": 999999, "result": 1}\n{"id": "x"}\n{"progress": 1}\n\xff\xfe\n{"call": 5}\n')
    return "still here"


@worker.action
def strange(request, kind):
    """Results and errors that are not JSON."""
    if kind == "error":
        raise Failure("odd", "half a \ud800 character", {"data": float("inf")})
    return {"number": [float("nan")], "surrogate": "\ud800", "key": {"\udc00": 1}, "thing": len}[kind]


@worker.action
def drone(request):
    """A line without end."""
    try:
        while True:
            worker._write(b"x" * 65536)
    except BrokenPipeError:
        os._exit(0)


@worker.action
def stubborn(request):
    """Neither ends nor hears that it should."""
    while True:
        time.sleep(1)


@worker.action
def meet(request, folder, count):
    """Comes back when so many are here at once."""
    open(os.path.join(folder, str(os.getpid())), "w").close()
    while len(os.listdir(folder)) < count:
        request.check()
        time.sleep(0.005)
    return os.getpid()


@worker.action
def crowd(request, app, count, refused):
    """Asks for more at once than it may, until so many were refused."""
    for number in range(count):
        worker._send({"call": {"id": f"c{number}", "app": app, "action": "wait"}})
    while refused > 0:
        if worker._receive().get("error", {}).get("code") == "busy":
            refused -= 1


worker.run()
