"""What `load` says when ImageNet isn't there, or not as it should be."""

import pytest

from tests import imagenet_files
from tf_gnc import data
from tf_gnc.data import DatasetNotFoundError, prepared


@pytest.mark.parametrize("download", [False, True])
def test_load__not_prepared__error_has_the_exact_steps(tmp_path, download):
    with pytest.raises(DatasetNotFoundError) as caught:
        data.load("imagenet2012", tmp_path, download)
    message = str(caught.value)
    assert "\n" not in message
    for part in (
        "ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar",
        f"move both to {tmp_path}/downloads/manual",
        f"tfds build imagenet2012 --data_dir={tmp_path}",
    ):
        assert part in message


def test_load__archives_there_and_download__lets_tfds_prepare(
    tmp_path, monkeypatch
):
    manual = tmp_path / "downloads" / "manual"
    manual.mkdir(parents=True)
    for file in ("ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"):
        (manual / file).touch()
    asked = []

    def prepare(name, data_dir):
        asked.append(name)
        return str(imagenet_files.write(data_dir))

    monkeypatch.setattr(prepared, "_download", prepare)
    got = data.load("imagenet2012", tmp_path, download=True)
    assert (
        asked == ["imagenet2012"] and got.num_train == imagenet_files.NUM_TRAIN
    )


def test_load__other_file_format__error_says_how_to_convert(tmp_path):
    imagenet_files.write(tmp_path, file_format="array_record")
    with pytest.raises(
        ValueError,
        match="got file_format='array_record'.*tfds convert_format "
        "--dataset_version_dir=.*5.1.0 --out_file_format=tfrecord",
    ):
        data.load("imagenet2012", tmp_path)


def test_load__a_file_is_missing__error_names_it(tmp_path):
    directory = imagenet_files.write(tmp_path)
    name = "imagenet2012-train.tfrecord-00002-of-00004"
    (directory / name).unlink()
    with pytest.raises(DatasetNotFoundError, match=f"lacks 1 of the 4.*{name}"):
        data.load("imagenet2012", tmp_path)
