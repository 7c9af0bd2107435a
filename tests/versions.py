"""Runs a command once for each of several PostgreSQL versions: `python -m tests.versions oldest 16 -- pytest -x`."""

import sys

from tests import series
from tests.installations import chosen


def main() -> int:
    wanted, command = series.arguments()
    installations = list(dict.fromkeys(one for word in wanted for one in chosen(word)))
    if not installations:
        print(f"there is no PostgreSQL at hand for: {' '.join(wanted)}")
        return 1
    return series.run(
        series.Step(one.name, command, {"FASTPUBSUB_TEST_POSTGRES": one.setting}) for one in installations
    )


if __name__ == "__main__":
    sys.exit(main())
