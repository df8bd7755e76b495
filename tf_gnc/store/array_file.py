"""Named arrays in one file: their bytes one after the other, and a table.

The table says where each array lies, and goes into the manifest: a file has
no head of its own. So a range of rows can be read, or an array be mapped into
memory, without reading the rest.
"""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes  # noqa: F401  tells NumPy the names bfloat16, float8_...
import numpy as np

from tf_gnc._files import Reader
from tf_gnc.store.disk import CHUNK_BYTES, DamagedError, naming

Source = Path | Reader
"""Where a file is read from; a reader for one in a bucket."""

Table = dict[str, dict[str, Any]]

# Every array starts at a multiple of this, so that it can be used in place.
ALIGNMENT = 64


def table_of(arrays: Mapping[str, np.ndarray]) -> Table:
    """Returns dtype, shape and offset in the file of each array, in order."""
    table, end = {}, 0
    for name, array in arrays.items():
        if not isinstance(name, str):
            raise ValueError(f"`arrays` must have names, got {name!r}.")
        offset = -(-end // ALIGNMENT) * ALIGNMENT
        end = offset + array.nbytes
        table[name] = {
            "dtype": _dtype_word(name, array.dtype),
            "shape": list(array.shape),
            "offset": offset,
        }
    return table


def chunks_of(
    arrays: Mapping[str, np.ndarray], table: Table
) -> Iterator[np.ndarray]:
    """Yields the file's bytes in pieces, without copying any large array."""
    end = 0
    for name, array in arrays.items():
        offset = table[name]["offset"]
        yield np.zeros(offset - end, np.uint8)
        end = offset + array.nbytes
        if array.flags.c_contiguous:
            data, step = _as_bytes(array), CHUNK_BYTES
        else:
            # A slice of `flat` is a copy in the right order.
            data, step = array.flat, max(1, CHUNK_BYTES // array.itemsize)
        for start in range(0, len(data), step):
            yield _as_bytes(data[start : start + step])


def map_arrays(source: Source, table: Table) -> Mapping[str, np.ndarray]:
    """Returns a file's arrays, read-only, read as they are used."""
    if isinstance(source, Reader):
        return _ArraysInBucket(source, table)
    with naming(source):
        size = source.stat().st_size
        # An empty file can't be mapped.
        data = np.memmap(source, np.uint8, "r") if size else np.empty(0, "u1")
    arrays = {}
    for name, entry in table.items():
        dtype, shape = np.dtype(entry["dtype"]), tuple(entry["shape"])
        end = entry["offset"] + math.prod(shape) * dtype.itemsize
        if math.prod(shape) and end > size:
            raise _too_short(source)
        part = np.asarray(data)[entry["offset"] : end]
        arrays[name] = part.view(dtype).reshape(shape)
    return arrays


def read_rows(
    source: Source, entry: Mapping[str, Any], start: int, stop: int
) -> np.ndarray:
    """Returns a copy of the rows `start` to `stop - 1` of a table's entry."""
    dtype, shape = np.dtype(entry["dtype"]), tuple(entry["shape"])
    num_rows = shape[0] if shape else 0
    if not 0 <= start <= stop <= num_rows:
        raise ValueError(
            "`start` and `stop` must be rows of the array, 0 <= start <= stop "
            f"<= {num_rows}, got start={start}, stop={stop} for shape {shape}."
        )
    rows = np.empty((stop - start, *shape[1:]), dtype)
    row_bytes = math.prod(shape[1:]) * dtype.itemsize
    _read_into(_as_bytes(rows), source, entry["offset"] + start * row_bytes)
    return rows


class _ArraysInBucket(Mapping):
    """A file's arrays by name, each read anew whenever it is asked for."""

    def __init__(self, reader: Reader, table: Table) -> None:
        self._reader, self._table = reader, table

    def __getitem__(self, name: str) -> np.ndarray:
        entry = self._table[name]
        array = np.empty(entry["shape"], np.dtype(entry["dtype"]))
        _read_into(_as_bytes(array), self._reader, entry["offset"])
        array.flags.writeable = False
        return array

    def __iter__(self) -> Iterator[str]:
        return iter(self._table)

    def __len__(self) -> int:
        return len(self._table)


def _read_into(data: np.ndarray, source: Source, offset: int) -> None:
    """Fills an array of bytes with those of a file from an offset on."""
    if isinstance(source, Reader):
        with naming(source.path):
            read = source.read(offset, len(data))
        size = len(read)
        data[:size] = np.frombuffer(read, np.uint8)
    else:
        with naming(source), open(source, "rb") as file:
            file.seek(offset)
            size = file.readinto(data)
    if size != len(data):
        raise _too_short(source)


def _as_bytes(array: np.ndarray) -> np.ndarray:
    return array.reshape(-1).view(np.uint8)


def _dtype_word(name: str, dtype: np.dtype) -> str:
    """The word from which NumPy makes this dtype again."""
    plain = dtype.itemsize > 0 and not dtype.hasobject
    # The first has the byte order, the second is for those of ml_dtypes.
    for word in (dtype.str, dtype.name):
        try:
            if np.dtype(word) == dtype and plain:
                return word
        except TypeError:
            continue
    raise TypeError(
        "`arrays` must hold plain numbers, texts or bytes, got "
        f"dtype {dtype} for {name!r}. Convert it, or store its fields as "
        "arrays of their own."
    )


def _too_short(source: Source) -> DamagedError:
    path = source.path if isinstance(source, Reader) else source
    return DamagedError(f"{path}: it is too short for its arrays.")
