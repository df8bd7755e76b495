"""The store in a bucket, where no folder can be renamed.

A backup's files are written where they are to stay, in a folder whose name was
never used before; whatever is half written there, no other backup is made of
it. `MARK` is there from before the first of them until after the last, the
manifest. So a folder with a manifest is a backup, one with the mark alone was
left unfinished, and one with neither is damaged.
"""

import os
from collections.abc import Sequence

from tf_gnc import _files
from tf_gnc._files import AnyPath
from tf_gnc.store.draft import is_part, refusal
from tf_gnc.store.generation import MANIFEST, generation_name, parse_name
from tf_gnc.store.store import Store, files_of

MARK = ".draft-begun"


def open_store(directory: str | os.PathLike, keep: int = 2) -> Store:
    """Returns the store of a directory, on a disk or in a bucket."""
    in_bucket = _files.is_bucket(_files.as_path(directory))
    return (BucketStore if in_bucket else Store)(directory, keep)


class BucketStore(Store):
    """A directory of backups in a bucket; see `Store`."""

    in_bucket = True

    def prepare(self) -> None:
        """Sees whether the bucket can be written to."""
        probe = self.directory / ".writable"
        try:
            probe.write_bytes(b"")
            probe.unlink(missing_ok=True)
        except OSError as error:
            raise refusal(error, self.directory) from error

    def _make_draft(self, step: int) -> None:
        mark = self.directory / self._next_name(step) / MARK
        try:
            mark.write_bytes(b"")
        except OSError as error:
            raise refusal(error, mark) from error

    def _unfinished(self) -> dict[str, AnyPath]:
        found = {}
        for name in self._generations():
            folder = self.directory / name
            if (folder / MANIFEST).exists():
                continue
            if (folder / MARK).exists():
                found[name] = folder / MARK
        return found

    def _draft_path(self, step: int) -> AnyPath:
        # The one that was begun last is the first of them.
        ours = [n for n in self._generations() if parse_name(n)[0] == step]
        name = ours[0] if ours else generation_name(step)
        return self.directory / name

    def _give_name(self, step: int) -> str:
        path = self._draft_path(step)
        (path / MARK).unlink(missing_ok=True)
        return path.name

    def _left_behind(self, step: int) -> Sequence[str]:
        return [n for n in self._unfinished() if parse_name(n)[0] <= step]

    def _remove(self, path: AnyPath) -> None:
        """Removes a folder so that no half of it ever looks like a backup."""
        if (path / MANIFEST).exists():
            there = {inside.name for inside in path.iterdir()}
            others = there - files_of(path) - {MARK}
            if not all(map(is_part, others)):
                return  # Somebody has added something.
            (path / MARK).write_bytes(b"")
            (path / MANIFEST).unlink()
        for inside in list(path.iterdir()):
            if inside.name != MARK:
                inside.unlink(missing_ok=True)
        (path / MARK).unlink(missing_ok=True)
