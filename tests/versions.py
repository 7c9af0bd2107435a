"""Runs a command once for each of several PostgreSQL versions: `python -m tests.versions oldest 16 -- pytest -x`."""

import os
import subprocess
import sys

from tests.installations import Installation, chosen


def main() -> int:
    separator = sys.argv.index("--")
    wanted, command = sys.argv[1:separator], sys.argv[separator + 1 :]
    installations = list(dict.fromkeys(one for word in wanted for one in chosen(word)))
    if not installations:
        print(f"there is no PostgreSQL at hand for: {' '.join(wanted)}")
        return 1
    results = [(one, *run(one, command)) for one in installations]
    print()
    for one, code, summary in results:
        print(f"{one.name}: exit code {code}\n{summary}")
    return max(code for _, code, _ in results)


def run(installation: Installation, command: list[str]) -> tuple[int, str]:
    """The exit code, and the last line that it printed."""
    print(f"\n{installation.name}", flush=True)
    environment = {**os.environ, "FASTPUBSUB_TEST_POSTGRES": installation.setting}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        last = ""
        for line in process.stdout or ():
            print(line, end="", flush=True)
            last = line.rstrip() or last
    return process.returncode, last


if __name__ == "__main__":
    sys.exit(main())
