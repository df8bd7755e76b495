"""Records in random order, from files too large for memory.

What comes at a step is a function of (seed, step) alone, given the files and
the batch size; and a process that wants some rows of each batch reads little
else. Both come from *lanes*: for each epoch the files are laid end to end in a
random order and cut into lanes of equal length, or nearly so, and row k of
every batch comes from lane `k * num_lanes // batch_size`. A lane takes turns
between a few of its files, and then shuffles within windows.

How well that mixes: an example meets any other, but two that are neighbours
in a file are never far from each other. tensorflow-datasets shuffles when it
writes the files, so that neighbours have nothing in common.

Symbols   lane   counts from 0
          piece  a range of one file's records
          index  of an example: its position when the files are read in order
"""

import dataclasses
import itertools
from collections.abc import Callable

import tensorflow as tf

from tf_gnc.data import _random_bits
from tf_gnc.data.pipeline import Batches, example_seeds

_WINDOW = 18  # salt; pipeline.py has 16 and 17

# As many files are read at once, per lane.
_OPEN_FILES = 4
# Most lanes: with more, each has too few of ImageNet's 1,024 files to mix.
_MAX_LANES = 64
# Records in the windows of all lanes: half a gigabyte of ImageNet, and as much
# again for the windows that are filled in the meantime.
_WINDOW_RECORDS = 4096


@dataclasses.dataclass(frozen=True)
class Records:
    """One split of a data set, in TFRecord files of these `lengths`.

    `parse` makes (encoded picture, label) of a record, in a graph.
    """

    paths: tuple[str, ...]
    lengths: tuple[int, ...]
    parse: Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]

    @property
    def num_examples(self) -> int:
        """How many examples there are."""
        return sum(self.lengths)


def training_records(records: Records, batches: Batches) -> tf.data.Dataset:
    """Returns the endless sequence of some rows of all batches, one by one.

    Each is (seed, record): int64 `(2,)`, a number from (seed, epoch) and the
    example's index; and a string.
    """
    # Doesn't depend on how many processes there are.
    most = min(_MAX_LANES, len(records.paths))
    num_lanes = max(m for m in range(1, most + 1) if batches.size % m == 0)
    lanes = _Lanes(records, batches, num_lanes)
    block = lanes.block
    own_lanes = tf.data.Dataset.range(
        batches.start // block, -(-batches.stop // block)
    )

    def own_rows(lane: tf.Tensor) -> tf.data.Dataset:
        first = tf.maximum(batches.start - lane * block, 0)
        last = batches.stop - lane * block
        return lanes.blocks(lane).map(
            lambda seeds, raw: (seeds[first:last], raw[first:last])
        )

    return own_lanes.interleave(
        own_rows,
        cycle_length=own_lanes.cardinality(),
        num_parallel_calls=tf.data.AUTOTUNE,
        deterministic=True,
    ).unbatch()


def evaluation_records(records: Records) -> tf.data.Dataset:
    """Returns every record once, in order."""
    paths = tf.data.Dataset.from_tensor_slices(list(records.paths))
    raw = paths.flat_map(tf.data.TFRecordDataset)
    return raw.apply(
        tf.data.experimental.assert_cardinality(records.num_examples)
    )


@dataclasses.dataclass(frozen=True)
class _Lanes:
    """The lanes of a run, from its first step on.

    Of the n examples of an epoch each lane takes n // num_lanes, and of these
    what fills whole batches. If they are carried over, lane l has taken
    (epoch * n + l) // num_lanes before an epoch, n in each by all lanes.
    """

    records: Records
    batches: Batches
    num_lanes: int

    @property
    def block(self) -> int:
        """Rows of a lane in each batch."""
        return self.batches.size // self.num_lanes

    def blocks(self, lane: tf.Tensor) -> tf.data.Dataset:
        """Returns a lane's endless (seeds, records), a batch's rows at once."""
        position = self.batches.first_step * self.block
        n, used = self.records.num_examples, self.batches.used // self.num_lanes
        if self.batches.carry:
            first = ((position + 1) * self.num_lanes - 1 - lane) // n
            skipped = position - (first * n + lane) // self.num_lanes
        else:
            first = tf.constant(position // used, tf.int64)
            skipped = tf.constant(position % used, tf.int64)

        def one_epoch(number: tf.Tensor) -> tf.data.Dataset:
            skip = tf.where(number == 0, skipped, 0)
            examples = self._examples(first + number, lane, skip)
            if self.batches.carry:
                return examples
            return examples.take(used - skip)

        epochs = tf.data.Dataset.counter().flat_map(one_epoch)
        return epochs.batch(self.block, drop_remainder=True)

    def _ends(self, epoch: tf.Tensor) -> tf.Tensor:
        """Returns where each lane of an epoch ends, in its order of files."""
        n, lanes = self.records.num_examples, tf.range(self.num_lanes)
        lanes = tf.cast(lanes, tf.int64)
        if not self.batches.carry:
            return (lanes + 1) * (n // self.num_lanes)
        before, after = (
            (number * n + lanes) // self.num_lanes
            for number in (epoch, epoch + 1)
        )
        return tf.cumsum(after - before)

    def _examples(
        self, epoch: tf.Tensor, lane: tf.Tensor, skip: tf.Tensor
    ) -> tf.data.Dataset:
        """Returns (seed, record) of a lane in an epoch, `skip` passed over."""
        paths, seed = self.records.paths, self.batches.seed
        shards = example_seeds(seed, epoch, len(paths))  # (files, 2)
        order, epoch_seed = shards[:, 1], shards[0, 0]
        ends = self._ends(epoch)
        start = tf.where(lane > 0, ends[tf.maximum(lane - 1, 0)], 0)
        pieces = _pieces(self.records, order, start, ends[lane])
        examples = pieces.interleave(_reader(self.records), _OPEN_FILES)

        def shuffle(
            number: tf.Tensor, indices: tf.Tensor, raw: tf.Tensor
        ) -> tuple[tf.Tensor, tf.Tensor]:
            seed = tf.stack([epoch_seed, number * self.num_lanes + lane])
            moved = _random_bits.permutation(seed, _WINDOW, tf.size(indices))
            indices = tf.gather(indices, moved)
            seeds = tf.fill(tf.shape(indices), epoch_seed)
            return tf.stack([seeds, indices], 1), tf.gather(raw, moved)

        size = -(-_WINDOW_RECORDS // self.num_lanes)
        windows = examples.batch(size).enumerate().skip(skip // size)
        windows = windows.map(lambda number, window: shuffle(number, *window))
        return windows.prefetch(1).unbatch().skip(skip % size)


def _pieces(
    records: Records, order: tf.Tensor, start: tf.Tensor, stop: tf.Tensor
) -> tf.data.Dataset:
    """Returns (file, first record, last record + 1) of a lane, all int64.

    `order` is that of the files in the epoch, in which the lane goes from the
    example `start` to `stop`.
    """
    lengths = tf.gather(tf.constant(records.lengths, tf.int64), order)
    starts = tf.cumsum(lengths, exclusive=True)
    first = tf.clip_by_value(start - starts, 0, lengths)
    last = tf.clip_by_value(stop - starts, 0, lengths)
    # Not as one tensor: TensorFlow 2.21 crashes if what `skip` is given comes
    # from `tf.unstack`.
    used = last > first
    parts = tuple(tf.boolean_mask(part, used) for part in (order, first, last))
    return tf.data.Dataset.from_tensor_slices(parts)


def _reader(records: Records) -> Callable[..., tf.data.Dataset]:
    """Returns a function from a piece to its (index, record) pairs."""
    paths = tf.constant(records.paths)
    lengths = tf.constant(records.lengths, tf.int64)
    ends = tf.constant(list(itertools.accumulate(records.lengths)), tf.int64)

    def read(
        file: tf.Tensor, first: tf.Tensor, last: tf.Tensor
    ) -> tf.data.Dataset:
        offset = ends[file] - lengths[file]
        indices = tf.data.Dataset.range(offset + first, offset + last)
        # A file that is too short is an error, not a shorter epoch.
        whole = tf.data.experimental.assert_cardinality(lengths[file])
        raw = tf.data.TFRecordDataset(paths[file]).apply(whole).skip(first)
        return tf.data.Dataset.zip(indices, raw)

    return read
