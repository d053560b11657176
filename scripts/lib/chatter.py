#!/usr/bin/env python3
"""Repeats the first answer of multicast DNS that it hears, a thousand times a second, until it is ended.

    chatter.py ADDRESS      of the interface to use

Nodes that start meanwhile have heard an answer before they have asked anything. Prints `repeating` when it begins.
"""

import socket
import sys
import time

GROUP, PORT = "224.0.0.251", 5353
HEADER = bytes([0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0])
QUESTION = HEADER + b"\x04_p2p\x04_udp\x05local\x00\x00\x0c\x00\x01"


def main():
    address = sys.argv[1]
    heard = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    heard.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    heard.bind(("", PORT))
    heard.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, socket.inet_aton(GROUP) + socket.inet_aton(address))
    heard.settimeout(0.5)
    said = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    said.bind((address, 0))
    answer = first_answer(heard, said)
    print("repeating", flush=True)
    while True:
        said.sendto(answer, (GROUP, PORT))
        time.sleep(0.001)


def first_answer(heard, said):
    """Asks until somebody answers."""
    while True:
        said.sendto(QUESTION, (GROUP, PORT))
        try:
            packet = heard.recv(4096)
        except socket.timeout:
            continue
        is_answer, answers = packet[2] & 0x80, packet[7]
        if is_answer and answers:
            return packet


main()
