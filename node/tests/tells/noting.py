"""An application for the tests that notes each number that it is told in the file that is its argument, eight digits a line. It takes
its time, so that others wait meanwhile.
"""

import json
import os
import sys

notes = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
for line in sys.stdin:
    request = json.loads(line)
    sum(range(5_000))
    # One write is one line in the file, whoever else writes.
    os.write(notes, f"{request['message']:08}\n".encode())
    print(json.dumps({"id": request["id"], "result": None}), flush=True)
