"""Pictures that stay in their files: tiny ones, of ImageNet's kind."""

import itertools
import shutil

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from tests import imagenet_files
from tests.imagenet_files import NUM_FILES, NUM_TEST, NUM_TRAIN
from tf_gnc import data
from tf_gnc.data import image_files, shards
from tf_gnc.data.pipeline import check_batches

BATCH = 8
BATCHES = {"batch_size": BATCH, "seed": 1}
PLAIN = data.Preprocess((0.0,), (1.0,))
FULL = data.DATASETS["imagenet2012"].preprocess


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    path = tmp_path_factory.mktemp("imagenet")
    imagenet_files.write(path)
    return path


@pytest.fixture(scope="module")
def records(data_dir):
    return data.load("imagenet2012", data_dir).train


@pytest.fixture(scope="module")
def dataset(records):
    return training_dataset(records)


@pytest.fixture(scope="module")
def whole(dataset):
    """The first three epochs, of seven batches each."""
    return list(dataset.take(21).as_numpy_iterator())


def training_dataset(records, preprocess=FULL, image_size=8, **arguments):
    source = data.ImageFiles(records, records, 1000, preprocess, image_size)
    return source.training(**{**BATCHES, **arguments})


def batches(records, num, **arguments):
    dataset = training_dataset(records, **arguments)
    return list(dataset.take(num).as_numpy_iterator())


def labels(records, num, **arguments):
    plain = {"preprocess": PLAIN, **arguments}  # It's quickly traced.
    return np.array([b[1] for b in batches(records, num, **plain)])


def assert_same(one, two):
    for got, want in zip(one, two, strict=True):
        np.testing.assert_array_equal(got[1], want[1])
        np.testing.assert_array_equal(got[0], want[0])


def test_files__tiny_data_set__has_the_schema_of_tfds(data_dir):
    real = tfds.builder("imagenet2012", data_dir=data_dir / "no").info.features
    mine = tfds.builder_from_directory(
        data_dir / "imagenet2012" / "5.1.0"
    ).info.features
    assert mine.get_tensor_spec() == real.get_tensor_spec()
    assert mine.get_serialized_info() == real.get_serialized_info()
    assert mine["label"].num_classes == real["label"].num_classes


def test_load__tiny_imagenet__finds_all_files_and_classes(data_dir):
    got = data.load("imagenet2012", data_dir)
    assert (got.num_train, got.num_classes) == (NUM_TRAIN, 1000)
    assert got.test.num_examples == NUM_TEST
    assert len(got.train.paths) == len(got.test.paths) == NUM_FILES


def test_training__its_settings__are_those_of_the_registry(data_dir):
    source = data.load("imagenet2012", data_dir)
    arguments = {"batch_size": BATCH, "seed": 1, "rows": (2, 7)}
    for augment in (True, False):
        training = source.training(**arguments, augment=augment)
        assert training.element_spec == (
            tf.TensorSpec((5, 224, 224, 3), tf.float32),
            tf.TensorSpec((5,), tf.int64),
        )
        settings = FULL if augment else FULL.without_augmentation()
        want = batches(
            source.train,
            1,
            preprocess=settings,
            image_size=224,
            rows=(2, 7),
        )
        assert_same(training.take(1).as_numpy_iterator(), want)


def assert_epochs(targets):
    """Of three epochs: none shows a picture twice, and they differ."""
    everything = {imagenet_files.label(i) for i in range(NUM_TRAIN)}
    epochs = targets.reshape(3, -1)
    for epoch in epochs:
        assert len(set(epoch)) == targets.size // 3
        assert set(epoch) <= everything
    assert (epochs[0] != epochs[1]).any() and (epochs[1] != epochs[2]).any()


def test_training_dataset__seven_batches__epoch_has_no_repetition(whole):
    assert_epochs(np.array([targets for _, targets in whole]))


@pytest.mark.parametrize("batch_size", [6, 61])
def test_training_dataset__any_batch_size__epoch_has_no_repetition(
    records, batch_size
):
    steps = NUM_TRAIN // batch_size
    assert_epochs(labels(records, 3 * steps, batch_size=batch_size))


def test_training_dataset__many_epochs__every_example_comes_anywhere(records):
    # By thirds of an epoch of 7 * 8 examples; each in each third sometimes.
    epochs = labels(records, 7 * 40).reshape(40, 56)
    for third in np.array_split(epochs, 3, axis=1):
        assert len(np.unique(third)) == NUM_TRAIN


def test_training_dataset__same_seed__same_bits_on_one_thread_too(
    records, whole
):
    tf.random.set_seed(123)
    anew = training_dataset(records)
    options = tf.data.Options()
    options.threading.private_threadpool_size = 1
    options.autotune.enabled = False
    for dataset in (anew, anew.with_options(options)):
        assert_same(dataset.take(9).as_numpy_iterator(), whole[:9])
    other = labels(records, 3, seed=2)
    assert (other != np.array([batch[1] for batch in whole[:3]])).any()


def test_training_dataset__one_seed__augmentation_differs_by_epoch(whole):
    by_label = [{}, {}]
    for step, (images, targets) in enumerate(whole[:14]):
        by_label[step // 7].update(zip(targets, images, strict=True))
    both = set(by_label[0]) & set(by_label[1])
    same = [np.array_equal(by_label[0][i], by_label[1][i]) for i in both]
    assert len(both) > 40 and sum(same) <= 2


def test_training_dataset__rows_in_pieces__equal_the_whole(records, whole):
    # A lane has two rows: a part of one, parts of two, whole lanes.
    cuts = (0, 1, 3, 8)
    parts = [batches(records, 9, rows=r) for r in itertools.pairwise(cuts)]
    joined = [
        tuple(np.concatenate(arrays) for arrays in zip(*step, strict=True))
        for step in zip(*parts, strict=True)
    ]
    assert_same(joined, whole[:9])


def test_training_dataset__first_step__equals_skipping(records, whole):
    got = batches(records, 9, first_step=12)
    assert_same(got, whole[12:])


def test_training_dataset__first_step_and_small_windows__equals_skipping(
    records, monkeypatch
):
    # 2 records in each lane's window, instead of all of them.
    monkeypatch.setattr(shards, "_WINDOW_RECORDS", 8)
    whole = batches(records, 21)
    for first_step in (6, 12):
        got = batches(records, 9, first_step=first_step)
        assert_same(got, whole[first_step : first_step + 9])


def test_training_dataset__first_step_far_away__starts_at_once(records):
    assert len(labels(records, 1, first_step=7_000_000)) == 1


def test_training_dataset__rows_and_first_step__parse_nothing_else(records):
    wanted = labels(records, 7, rows=(2, 4))[3:]

    def parse(raw):
        contents, label = records.parse(raw)
        known = tf.reduce_any(label == tf.constant(wanted.ravel()))
        with tf.control_dependencies([tf.debugging.Assert(known, [label])]):
            return tf.identity(contents), label

    picky = shards.Records(records.paths, records.lengths, parse)
    dataset = training_dataset(picky, rows=(2, 4), first_step=3)
    # Without its prefetching, which would go on into the next epoch.
    got = shards.training_records(
        picky,
        check_batches(NUM_TRAIN, **BATCHES, rows=(2, 4), first_step=3),
    ).take(wanted.size)
    got = [int(parse(raw)[1]) for _, raw in got]
    assert got == wanted.ravel().tolist()
    with pytest.raises(tf.errors.InvalidArgumentError):  # `parse` is asked
        list(dataset.take(30))


def test_training_dataset__rows_of_one_lane__other_files_stay_closed(
    records, tmp_path
):
    want = labels(records, 7, rows=(0, 2))
    files = [set(), set(), set(), set()]
    for number, path in enumerate(records.paths):
        for raw in tf.data.TFRecordDataset(path):
            files[number].add(int(records.parse(raw)[1]))
    used = [i for i, held in enumerate(files) if held & set(want.ravel())]
    assert 1 <= len(used) <= 2 < NUM_FILES
    paths = [str(tmp_path / str(i)) for i in range(NUM_FILES)]
    # A lane of 15 records may reach into a file whose one is dropped.
    for i in used:
        shutil.copy(records.paths[i], paths[i])
    few = shards.Records(tuple(paths), records.lengths, records.parse)
    rows = shards.training_records(
        few, check_batches(NUM_TRAIN, **BATCHES, rows=(0, 2))
    )
    got = [int(few.parse(raw)[1]) for _, raw in rows.take(want.size)]
    assert got == want.ravel().tolist()


def test_training_dataset__graph__decodes_in_one_op_without_python(dataset):
    assert dataset.cardinality() == tf.data.INFINITE_CARDINALITY
    graph = dataset._as_serialized_graph().numpy()
    assert b"DecodeAndCropJpeg" in graph and b"PyFunc" not in graph


def central(number, size):
    """The central window of a picture by whole decoding and slicing."""
    image = tf.io.decode_jpeg(imagenet_files.jpeg(number))
    height, width, _ = image.shape
    side = round(0.875 * min(height, width))
    top, left = (height - side) // 2, (width - side) // 2
    image = image[top : top + side, left : left + side]
    resized = tf.image.resize(image, (size, size), "bicubic").numpy()
    return np.clip(np.rint(resized), 0, 255)


def test_evaluation__any__every_example_once_in_order(data_dir, monkeypatch):
    monkeypatch.setattr(image_files, "_EVALUATION_BATCH", 4)
    test = data.load("imagenet2012", data_dir).test
    source = data.ImageFiles(test, test, 1000, PLAIN, 8)
    got = list(source.evaluation().as_numpy_iterator())
    assert [len(batch[1]) for batch in got] == [4, 4, 2]
    builder = tfds.builder_from_directory(data_dir / "imagenet2012" / "5.1.0")
    config = tfds.ReadConfig(interleave_cycle_length=1)
    files = builder.as_dataset(split="validation", read_config=config)
    want = [int(example["label"]) for example in files]
    targets = np.concatenate([batch[1] for batch in got])
    assert targets.tolist() == want
    numbers = {imagenet_files.label(i): i for i in range(NUM_TEST)}
    images = np.concatenate([batch[0] for batch in got])
    for image, target in zip(images, targets, strict=True):
        np.testing.assert_array_equal(image, central(numbers[target], 8))


def test_training_dataset__not_augmented__shows_the_central_window(records):
    ((images, targets),) = batches(records, 1, preprocess=PLAIN)
    numbers = {imagenet_files.label(i): i for i in range(NUM_TRAIN)}
    for image, target in zip(images, targets, strict=True):
        np.testing.assert_array_equal(image, central(numbers[target], 8))


def test_decode__png_or_grey_jpeg__gives_three_channels():
    picture = imagenet_files.picture(5)
    whole = lambda size: tf.stack([0, 0, size[0], size[1]])  # noqa: E731
    png = image_files.decode(tf.io.encode_png(picture), whole, 8)
    want = tf.image.resize(picture, (8, 8), "bicubic").numpy().clip(0, 255)
    np.testing.assert_array_equal(png, np.rint(want))
    grey = tf.io.encode_jpeg(picture[..., :1])
    grey = image_files.decode(grey, whole, 8).numpy()
    assert grey.shape == (8, 8, 3) and (grey[..., 0] == grey[..., 2]).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 62}, "batch_size=62 with 61 examples"),
        ({"seed": -1}, "seed=-1"),
        ({"first_step": -1}, "first_step=-1"),
        ({"rows": (4, 4)}, r"rows=\(4, 4\) with batch_size=8"),
        ({"image_size": 0}, "image_size=0"),
    ],
)
def test_training_dataset__bad_argument__error_names_it(
    records, arguments, message
):
    with pytest.raises(ValueError, match=message):
        batches(records, 1, **arguments)


def test_training_dataset__arrays_with_zoom__are_refused():
    with pytest.raises(ValueError, match="zoom=False .* got zoom=True"):
        data.training_dataset(
            np.zeros((4, 2, 2, 3), np.uint8),
            np.arange(4),
            batch_size=2,
            seed=0,
            preprocess=data.Preprocess(zoom=True),
        )


def test_training_dataset__records_missing_in_a_file__is_an_error(tmp_path):
    directory = imagenet_files.write(tmp_path)
    path = str(directory / "imagenet2012-train.tfrecord-00001-of-00004")
    kept = [raw.numpy() for raw in tf.data.TFRecordDataset(path)][:-2]
    with tf.io.TFRecordWriter(path) as writer:
        for raw in kept:
            writer.write(raw)
    records = data.load("imagenet2012", tmp_path).train
    with pytest.raises(tf.errors.OpError, match="expected to contain"):
        labels(records, 7)
