"""A worker for the tests: squares numbers, and notes each run in the file that is its argument.

A negative number is the end of the whole node.
"""

import json
import os
import signal
import sys

notes = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
for line in sys.stdin:
    request = json.loads(line)
    if "action" not in request:
        continue
    (number,) = request["args"]
    # One write is one line in the file, whoever else writes.
    os.write(notes, f"{number}\n".encode())
    if number < 0:
        os.kill(os.getppid(), signal.SIGKILL)
    print(json.dumps({"id": request["id"], "result": number * number}), flush=True)
