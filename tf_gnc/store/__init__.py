"""Backups that a killed process cannot spoil.

store       a directory of backups: the newest sound one, old ones removed
in_bucket   the same in a bucket, where no folder can be renamed
draft       a backup while several processes write it
generation  a finished backup, read and checked
array_file  named arrays in one file
disk        files that are on the disk when a call returns; checksums
"""

from tf_gnc.store.disk import DamagedError
from tf_gnc.store.draft import Draft
from tf_gnc.store.generation import Generation, generation_name
from tf_gnc.store.in_bucket import open_store
from tf_gnc.store.store import Store

__all__ = [
    "DamagedError",
    "Draft",
    "Generation",
    "Store",
    "generation_name",
    "open_store",
]
