"""A worker that answers with the line that it is asked for: `@` is the number of the request, each letter a byte.

Its first line is an empty one: it is ready at once.
"""

import json
import os
import sys

print(flush=True)
for line in sys.stdin:
    request = json.loads(line)
    if "cancel" in request:
        os._exit(1)
    answer = request["args"][0].replace("@", str(request["id"])).replace("PID", str(os.getpid()))
    sys.stdout.buffer.write(answer.encode("latin-1") + b"\n")
    sys.stdout.flush()
