"""Real servers of buckets on this machine, for tests.

Each runs in a thread of the test and can be stopped and started again on the
same port, with what it holds.
"""

import contextlib
import logging
import os
import socket

import fsspec
import pytest

from tf_gnc._files import bucket

# Read when gcsfs is imported. Else it asks by gRPC, which no emulator answers,
# for a minute.
os.environ["GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT"] = "false"


class S3:
    """moto's; what it holds belongs to the process, whatever its port."""

    def __init__(self, folder, port):
        self._port = port
        self.environment = {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    def start(self):
        moto_server = pytest.importorskip("moto.server")
        logging.getLogger("werkzeug").setLevel(logging.CRITICAL)
        self._server = moto_server.ThreadedMotoServer(
            "127.0.0.1", self._port, verbose=False
        )
        self._server.start()

    def stop(self):
        self._server.stop()


class GCS:
    """gcp-storage-emulator's, which keeps files in a folder."""

    def __init__(self, folder, port):
        self._folder, self._port = folder, port
        self.environment = {
            "STORAGE_EMULATOR_HOST": f"http://127.0.0.1:{port}",
            # Else a machine of Google's is looked for, in vain.
            "FSSPEC_GS_TOKEN": "anon",
        }

    def start(self):
        emulator = pytest.importorskip("gcp_storage_emulator.server")
        self._server = emulator.create_server(
            "127.0.0.1",
            self._port,
            in_memory=False,
            default_bucket=f"bucket-{self._port}",
            data_dir=os.fspath(self._folder),
        )
        self._server.start()

    def stop(self):
        self._server.stop()


KINDS = {"gs": (GCS, "gcsfs"), "s3": (S3, "s3fs")}


@contextlib.contextmanager
def running(scheme, folder, patch):
    """Yields a server with an empty bucket, for this process's children too."""
    kind, module = KINDS[scheme]
    pytest.importorskip(module)
    with socket.socket() as it:
        it.bind(("127.0.0.1", 0))
        port = it.getsockname()[1]
    server = kind(folder, port)
    server.address = f"{scheme}://bucket-{port}"
    for name, value in server.environment.items():
        patch.setenv(name, value)
    patch.setitem(fsspec.config.conf, "gs", {"token": "anon"})
    if scheme == "s3":  # It says no at once, and we are the ones who retry.
        once = {"config_kwargs": {"retries": {"total_max_attempts": 1}}}
        patch.setitem(fsspec.config.conf, "s3", once)
        patch.setattr(fsspec.get_filesystem_class("s3"), "retries", 1)
    server.start()
    try:
        _forget_connections()
        if scheme == "s3":  # The other has made its own.
            fsspec.filesystem(scheme).mkdir(server.address)
        yield server
    finally:
        server.stop()
        _forget_connections()


def _forget_connections():
    """Has file systems be made anew, which read the environment then."""
    bucket._file_system.cache_clear()
    for scheme in KINDS:
        fsspec.get_filesystem_class(scheme).clear_instance_cache()
