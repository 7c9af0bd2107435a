"""Orders a process of tests/warm.py through an inherited socket, and is as it is: `ordering.py 7 fastpubsub --help`."""

import json
import os
import signal
import socket
import sys

NUMBER_BYTES = 8
FORWARDED = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM)


def main(orders: int, command: str, *arguments: str) -> None:
    folder = os.getcwd()  # noqa: PTH109 - to import pathlib takes longer than everything else here
    wanted = {"command": command, "arguments": arguments, "folder": folder, "environment": dict(os.environ)}
    order = os.memfd_create("order")
    os.write(order, json.dumps(wanted).encode())
    news, told = socket.socketpair()
    with socket.socket(fileno=orders) as to_parent, told:
        socket.send_fds(to_parent, [b"+"], [order, told.fileno(), 0, 1, 2])
    pid = hear(news)
    for number in FORWARDED:
        signal.signal(number, lambda number, _: os.kill(pid, number))
    code = hear(news)
    if code < 0:
        signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    sys.exit(code)


def hear(news: socket.socket) -> int:
    heard = news.recv(NUMBER_BYTES, socket.MSG_WAITALL)
    if not heard:
        sys.exit("the process that forks is gone")
    return int.from_bytes(heard, "big", signed=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), *sys.argv[2:])
