"""The store: a directory of backups of which the newest sound one is found.

What is sealed is never written to again, whatever happens to the process or
the machine: a backup is made in a draft folder and appears by one rename.
Other people's files in the directory are left alone.
"""

import os
import re
import shutil
from collections.abc import Sequence

from tf_gnc import _check, _files
from tf_gnc._files import AnyPath
from tf_gnc.store import disk
from tf_gnc.store.draft import Draft, draft_not_seen, refusal
from tf_gnc.store.generation import (
    MANIFEST,
    Generation,
    file_path,
    generation_name,
    parse_name,
)

_DRAFT = re.compile(r"\.draft-([0-9]{12,})")
_REMOVED = re.compile(r"\.removed-(step-[0-9]{12,}(\.[0-9]+)?)")


class Store:
    """A directory of backups, on a local or shared file system.

    `open_store` makes one, or its like for a bucket.

    Making the object only looks. One process, the chief, calls `latest`,
    `begin` and `Draft.seal`; use one object for the whole run, since it
    remembers which backups `latest` has found damaged. The directory need not
    exist, and at least one backup is kept.

    Raises:
        ValueError: If `directory` isn't a path, or `keep` is below 1.
        NotADirectoryError: If `directory` is a file.
    """

    in_bucket = False

    def __init__(self, directory: str | os.PathLike, keep: int = 2) -> None:
        self.directory = _files.as_path(directory)
        if _files.is_bucket(self.directory) != self.in_bucket:
            raise ValueError(
                "`directory` must be where a folder can be renamed in one "
                f"step, got directory='{self.directory}'. Use `open_store`, "
                "which does without in a bucket."
            )
        self.keep = _check.integer("keep", keep, minimum=1)
        if self.directory.exists() and not self.directory.is_dir():
            raise NotADirectoryError(
                "`directory` must be a new or existing directory, got "
                f"directory='{self.directory}', which is a file."
            )
        self._damaged: set[str] = set()

    def prepare(self) -> None:
        """Makes the directory, and sees whether it can be written to.

        `begin` does this too. Call it before a long run, for an early error.

        Raises:
            OSError: If the directory can't be made or written to.
        """
        try:
            disk.make_folder(self.directory)
        except OSError as error:
            raise refusal(error, self.directory) from error
        if not os.access(self.directory, os.W_OK | os.X_OK):
            raise PermissionError(
                "`directory` must be writable, got "
                f"directory='{self.directory}', which isn't. Change its "
                "permissions, or choose another directory."
            )

    def begin(self, step: int) -> Draft:
        """Makes the draft of a new backup, in place of one left unfinished.

        For the chief only. The other processes then call `open_draft`.

        Raises:
            ValueError: If there is a sound backup of a later step.
            OSError: If the directory can't be made or written to.
        """
        step = _check.integer("step", step, minimum=0)
        self.prepare()
        # Somebody may have deleted some, and a deleted one's name is free.
        self._damaged.intersection_update(self._names())
        newest = next(iter(self._sealed()), None)
        if newest is not None and newest.step > step:
            raise ValueError(
                "`step` must not be behind the newest backup, got "
                f"step={step} with {newest.path}. Another run has written to "
                "this directory: continue from its backup, or choose another "
                "directory."
            )
        self._make_draft(step)
        return self.open_draft(step)

    def open_draft(self, step: int) -> Draft:
        """Returns the draft that the chief has begun.

        Raises:
            FileNotFoundError: If the draft can't be seen from this process.
        """
        path = self._draft_path(step)
        if not path.is_dir():
            raise draft_not_seen(path)
        return Draft(path, step, self._damaged, lambda: self._publish(step))

    def latest(self) -> tuple[Generation | None, list[str]]:
        """Returns the newest sound backup, and what is wrong with others.

        Reads every file of the newest backup and, as long as that is damaged,
        of the one before. What is damaged is left alone for good.

        Returns:
            The backup, or None if there is no sound one; and a sentence for
            each damaged file, in backups newer than that, and for each backup
            left unfinished.
        """
        found, problems = None, []
        unfinished = self._unfinished()
        for name in self._generations():
            if name in unfinished:
                continue
            faults = self.verify(name)
            if not faults:
                found = Generation(self.directory / name)
                self._damaged.discard(name)
                self._damaged.update(found.known_damaged)
                break
            self._damaged.add(name)
            problems += faults
        for draft in unfinished.values():
            problems.append(
                f"{draft}: whoever wrote it was stopped before it was complete."
            )
        return found, problems

    def verify(self, name: str) -> list[str]:
        """Reads a backup, and returns a sentence for each damaged file."""
        if parse_name(name) is None:
            raise ValueError(
                "`name` must be that of a backup, such as "
                f"{generation_name(1234)!r}, got name={name!r}."
            )
        try:
            return Generation(self.directory / name).problems()
        except disk.DamagedError as error:
            return [str(error)]

    def _make_draft(self, step: int) -> None:
        """Makes the draft of a step, in place of one left unfinished."""
        path = self._draft_path(step)
        try:
            if path.exists():
                shutil.rmtree(path)
            path.mkdir()
        except OSError as error:
            raise refusal(error, path) from error

    def _unfinished(self) -> dict[str, AnyPath]:
        """Returns what shows that a backup was begun, by the folders' names."""
        return {
            name: self.directory / name
            for name in self._names()
            if _DRAFT.fullmatch(name)
        }

    def _draft_path(self, step: int) -> AnyPath:
        step = _check.integer("step", step, minimum=0)
        return self.directory / f".draft-{step:012d}"

    def _names(self) -> list[str]:
        if not self.in_bucket and not self.directory.is_dir():
            return []
        return sorted(path.name for path in self.directory.iterdir())

    def _generations(self) -> list[str]:
        """The names of all generations, sound or not, newest first."""
        ours = filter(parse_name, self._names())
        return sorted(ours, key=parse_name, reverse=True)

    def _sealed(self) -> list[Generation]:
        """The generations that look sound at a glance, newest first."""
        found = []
        for name in self._generations():
            try:
                generation = Generation(self.directory / name)
            except disk.DamagedError:
                continue
            if name not in self._damaged and not generation.problems(False):
                found.append(generation)
        return found

    def _publish(self, step: int) -> tuple[Generation, list[str]]:
        """Gives a complete draft its name, and tidies up."""
        generation = Generation(self.directory / self._give_name(step))
        return generation, self._tidy(step)

    def _give_name(self, step: int) -> str:
        name = self._next_name(step)
        os.rename(self._draft_path(step), self.directory / name)
        disk.sync_folder(self.directory)
        return name

    def _next_name(self, step: int) -> str:
        """Returns a generation's name that is not yet taken."""
        parsed = map(parse_name, self._generations())
        serials = [serial for other, serial in parsed if other == step]
        return generation_name(step, max(serials, default=0) + 1)

    def _tidy(self, step: int) -> list[str]:
        """Removes old drafts, and sound backups beyond `keep`."""
        problems = []
        rubbish = [self.directory / name for name in self._left_behind(step)]
        rubbish += [old.path for old in self._sealed()[self.keep :]]
        for path in rubbish:
            try:
                self._remove(path)
            except OSError as error:
                problems.append(
                    f"{path}: it is old and can't be removed "
                    f"({error.strerror or error})."
                )
        return problems

    def _left_behind(self, step: int) -> Sequence[str]:
        """Returns what kills have left of folders, up to a sealed step."""
        return [
            name
            for name in self._names()
            if _REMOVED.fullmatch(name)
            or (draft := _DRAFT.fullmatch(name))
            and int(draft[1]) < step
        ]

    def _remove(self, path: AnyPath) -> None:
        """Removes a folder so that no half of it ever looks like a backup."""
        if parse_name(path.name):
            if not _only_ours(path):
                return
            hidden = path.with_name(f".removed-{path.name}")
            os.rename(path, hidden)
            disk.sync_folder(self.directory)
            path = hidden
        shutil.rmtree(path)


def _only_ours(path: AnyPath) -> bool:
    """Whether a generation's folder has nothing that somebody added."""
    there = {inside.name for inside in path.iterdir()}
    return not path.is_symlink() and there == files_of(path)


def files_of(path: AnyPath) -> set[str]:
    """Returns the names of a generation's files."""
    ours = {file_path(path, file).name for file in Generation(path).files}
    return {MANIFEST, *ours}
