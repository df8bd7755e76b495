import pytest

from tf_gnc import data


@pytest.fixture(scope="session")
def digits_dir(tmp_path_factory):
    """A directory with the digits prepared, instead of the user's own."""
    path = tmp_path_factory.mktemp("digits")
    data.load("digits", path)
    return str(path)
