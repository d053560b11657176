"""An application for the tests, one process for each tell: says the number that it was told to whoever listens on the port
that is its argument, and ends when it is let go.
"""

import json
import socket
import sys

told = json.loads(sys.stdin.read())
with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as stream:
    stream.sendall(f"{told}\n".encode())
    stream.recv(1)
