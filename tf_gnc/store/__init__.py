"""Store: backups on the disk that a killed process cannot damage."""

from tf_gnc.store.disk import DamagedError
from tf_gnc.store.draft import Draft
from tf_gnc.store.generation import Generation, generation_name
from tf_gnc.store.store import Store

__all__ = ["DamagedError", "Draft", "Generation", "Store", "generation_name"]
