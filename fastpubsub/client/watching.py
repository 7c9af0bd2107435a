"""Python files of a folder, and which of them has changed."""

import os
from contextlib import suppress
from pathlib import Path

IGNORED = ("node_modules", "__pycache__", "site-packages")


class Files:
    """All in the folder and below, except in hidden folders and in environments."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._seen = self._times()

    def changed(self) -> Path | None:
        """Returns one that was changed, added or removed since the last call."""
        before, self._seen = self._seen, self._times()
        return next(iter(sorted({file for file, _ in before.items() ^ self._seen.items()})), None)

    def _times(self) -> dict[Path, int]:
        times = {}
        for folder, folders, names in os.walk(self._folder):
            inside = [name for name in folders if not name.startswith(".") and name not in IGNORED]
            folders[:] = [name for name in inside if not Path(folder, name, "pyvenv.cfg").exists()]
            for name in names:
                file = Path(folder, name)
                if name.endswith(".py"):
                    with suppress(FileNotFoundError):  # as editors move theirs around
                        times[file.relative_to(self._folder)] = file.stat().st_mtime_ns
        return times
