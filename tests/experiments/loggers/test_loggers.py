"""`--log`: a run in TensorBoard's files, a real MLflow server, W&B offline."""

import contextlib
import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
import types
import urllib.request

import keras
import numpy as np
import PIL.Image
import pytest
import tensorflow as tf

from tests.cli import in_this_process
from tests.experiments.loggers import readers
from tf_gnc.cli import progress
from tf_gnc.cli.main import main
from tf_gnc.experiments import Placement, make_config
from tf_gnc.experiments.loggers.run_log import LogTo
from tf_gnc.experiments.run.placement import Workspace

THIS = "tests.experiments.loggers.test_loggers"
LIBRARIES = ("tensorboard", "mlflow", "wandb")
STEPS = 4  # of an epoch, of two


def load():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(96, 6)).astype("float32")
    y = (x[:, 0] > 0).astype("int64") + (x[:, 1] > 0)
    return (x[:64], y[:64]), (x[64:], y[64:])


def build():
    inputs = keras.Input((6,))
    return keras.Model(inputs, keras.layers.Dense(3)(inputs))


def _flags(run_dir, *more):
    return [
        "train", f"--data_fn={THIS}:load", f"--model_fn={THIS}:build",
        "--workers=2", "--batch_size=16", "--epochs=2", "--backup=3",
        f"--run_dir={run_dir}", *more,
    ]  # fmt: skip


LOG = [
    f"--log={','.join(LIBRARIES)}", "--log_every=1", "--probe=noise_norm",
    "--probe_every=3",
]  # fmt: skip


class Server:
    """`mlflow server` on this machine; started again, it has what it had."""

    def __init__(self, folder):
        self._folder = folder
        with socket.socket() as it:
            it.bind(("127.0.0.1", 0))
            port = it.getsockname()[1]
        self.address = f"http://127.0.0.1:{port}"
        self._command = [
            sys.executable, "-m", "mlflow", "server", "--workers=1",
            "--host=127.0.0.1", f"--port={port}",
            f"--backend-store-uri=sqlite:///{folder}/mlflow.db",
            f"--artifacts-destination={folder}/artifacts",
        ]  # fmt: skip

    def start(self):
        self._output = (self._folder / "server.log").open("a")
        self._process = subprocess.Popen(
            self._command,
            env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
            stdout=self._output,
            stderr=self._output,
            start_new_session=True,  # It starts others.
        )

    def wait(self):
        for _ in range(600):
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"{self.address}/health", timeout=5)
                return
            assert self._process.poll() is None, self._folder / "server.log"
            time.sleep(0.2)
        raise TimeoutError(self._folder / "server.log")

    def stop(self):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._output.close()


@pytest.fixture(scope="module", autouse=True)
def places(tmp_path_factory):
    """Where the libraries log to: their own variables say so."""
    folder = tmp_path_factory.mktemp("places")
    server = Server(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", server.address)
        patch.setenv("MLFLOW_EXPERIMENT_NAME", "digits and more")
        patch.setenv("WANDB_MODE", "offline")
        patch.setenv("WANDB_DIR", str(folder))
        patch.setenv("WANDB_PROJECT", "a-project")
        patch.setenv("WANDB_SILENT", "true")
        # Neither tells its maker.
        patch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
        patch.setenv("WANDB_ERROR_REPORTING", "false")
        yield types.SimpleNamespace(folder=folder, server=server)


@pytest.fixture(scope="module")
def server(places):
    """A running server; the package `mlflow` has it."""
    pytest.importorskip("mlflow")
    pytest.importorskip("flask_cors")  # The small package has no server.
    pytest.importorskip("wandb")
    pytest.importorskip("tensorboard")
    places.server.start()
    try:
        places.server.wait()
        yield places.server
    finally:
        places.server.stop()


def _client():
    import mlflow

    return mlflow.MlflowClient()


def _cut_short(patch, error=KeyboardInterrupt):
    """Has a run end with its second epoch, before that is backed up."""

    def cut(self, epoch, logs=None):
        if epoch == 1:
            raise error

    patch.setattr(progress.EpochLines, "on_epoch_end", cut)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A run that is logged nowhere."""
    run_dir = tmp_path_factory.mktemp("plain") / "run"
    assert main(_flags(run_dir)) == 0
    return run_dir


@pytest.fixture(scope="module")
def logged(server, tmp_path_factory):
    """The same run in all places."""
    run_dir = tmp_path_factory.mktemp("logged") / "whole"
    assert main(_flags(run_dir, *LOG)) == 0
    return run_dir


@pytest.fixture(scope="module")
def taken_up(server, tmp_path_factory):
    """The same, cut short after its last step and resumed at the sixth."""
    run_dir = tmp_path_factory.mktemp("taken-up") / "cut"
    with pytest.MonkeyPatch.context() as patch:
        _cut_short(patch)
        assert main(_flags(run_dir, *LOG)) == 130
    before = json.loads((run_dir / "loggers.json").read_text())
    status = _client().get_run(before["mlflow"]["id"]).info.status
    assert main(_flags(run_dir, *LOG, "--resume")) == 0
    summary = json.loads((run_dir / "summary.json").read_text())
    assert summary["resumed_steps"] == [6]
    return types.SimpleNamespace(run_dir=run_dir, before=before, status=status)


def _rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def _ids(run_dir):
    kept = json.loads((run_dir / "loggers.json").read_text())
    assert {record["step"] for record in kept.values()} == {2 * STEPS}
    return {name: record["id"] for name, record in kept.items()}


def _numbers(library, run_dir, places):
    """What a library has of a run: numbers by name and step."""
    if library == "tensorboard":
        return readers.from_tensorboard(run_dir / "tensorboard")[0]
    run_id = _ids(run_dir)[library]
    if library == "mlflow":
        return readers.from_mlflow(_client(), run_id)
    return readers.from_wandb(places.folder.glob(f"wandb/*-{run_id}"))[0]


@pytest.mark.parametrize("run", ["logged", "taken_up"])
@pytest.mark.parametrize("library", LIBRARIES)
def test_log__each_library__has_every_epoch_and_step_once(
    library, run, request, places
):
    run_dir = request.getfixturevalue(run)
    run_dir = getattr(run_dir, "run_dir", run_dir)
    found = _numbers(library, run_dir, places)
    rows = _rows(run_dir / "metrics.jsonl")
    assert [row["updates"] for row in rows] == [STEPS, 2 * STEPS]
    # A row that was made anew after the restart has the same numbers, but for
    # rounding and its time.
    close = {"rel": 1e-4, "abs": 1e-5}
    for row in rows:
        step = row["updates"]
        names = set(row) - {"rule", "seconds"}
        assert {"loss", "val_accuracy", "alpha", "probe_noise_norm"} < names
        for name in names:
            expected = pytest.approx([row[name]], **close)
            assert found[name, step] == expected, name
        assert len(found["seconds", step]) == 1
        # Of an epoch's last step, the mean so far is the epoch's.
        for name in ("loss", "accuracy", "learning_rate"):
            expected = pytest.approx([row[name]], **close)
            assert found[f"step/{name}", step] == expected
    for step in range(1, 2 * STEPS + 1):
        assert len(found["step/loss", step]) == 1
    probed = {
        s: v for (n, s), v in found.items() if n == "step/probe_noise_norm"
    }
    measured = {r["step"]: r for r in _rows(run_dir / "probe.jsonl")}
    assert probed.keys() == measured.keys() == {3, 6}
    for step, values in probed.items():
        expected = measured[step]["noise_norm"]
        assert values == [pytest.approx(expected, rel=1e-4)]


def test_log__weights_and_numbers__are_those_of_a_run_without(plain, logged):
    models = [
        keras.models.load_model(run_dir / "model.keras").get_weights()
        for run_dir in (plain, logged)
    ]
    for without, with_log in zip(*models, strict=True):
        np.testing.assert_array_equal(without, with_log)
    for without, with_log in zip(
        *[_rows(r / "metrics.jsonl") for r in (plain, logged)], strict=True
    ):
        assert {n: with_log[n] for n in without if n != "seconds"} == {
            n: v for n, v in without.items() if n != "seconds"
        }
    assert not (plain / "loggers.json").exists()


def _about(run_dir):
    names = ("config", "summary")
    return [json.loads((run_dir / f"{n}.json").read_text()) for n in names]


def test_mlflow__a_run__has_settings_summary_and_files(logged, tmp_path):
    client, run_id = _client(), _ids(logged)["mlflow"]
    run = client.get_run(run_id)
    about, summary = _about(logged)
    assert (run.info.status, run.info.run_name) == ("FINISHED", "whole")
    experiment = client.get_experiment(run.info.experiment_id)
    assert experiment.name == "digits and more"
    config = about["config"]
    for name in ("seed", "batch_size", "learning_rate", "model"):
        assert run.data.params[name] == str(config[name])
    accuracy = run.data.metrics["summary/val_accuracy"]
    assert accuracy == summary["val_accuracy"]
    for name in ("config.json", "summary.json", "curves.png"):
        path = client.download_artifacts(run_id, name, str(tmp_path))
        with open(path, "rb") as file:
            content, ours = file.read(), (logged / name).read_bytes()
        if name.endswith(".json"):
            content, ours = json.loads(content), json.loads(ours)
        assert content == ours


def test_wandb__a_run__has_settings_summary_and_curves(logged, places):
    run_id = _ids(logged)["wandb"]
    _, records = readers.from_wandb(places.folder.glob(f"wandb/*-{run_id}"))
    about, summary = _about(logged)
    (run,) = records["run"]
    assert (run.display_name, run.project) == ("whole", "a-project")
    config = {i.key: json.loads(i.value_json) for i in run.config.update}
    for name, value in about["config"].items():
        assert config[name] == value
    others = records["config"][0].update[0]
    versions = json.loads(others.value_json)["environment"]["versions"]
    assert others.key == "tf_gnc"
    assert versions == about["environment"]["versions"]
    (ours,) = [
        json.loads(item.value_json)
        for record in records["summary"]
        for item in record.update
        if item.key == "summary"
    ]
    assert ours == summary
    (artifact,) = records["artifact"]
    (file,) = artifact.manifest.contents
    assert (artifact.type, file.path) == ("figure", "curves.png")
    assert file.size == (logged / "curves.png").stat().st_size
    (end,) = records["exit"]
    assert end.exit_code == 0


def test_tensorboard__a_run__has_settings_summary_and_curves(logged):
    numbers, events = readers.from_tensorboard(logged / "tensorboard")
    about, summary = _about(logged)
    (event,) = events.Tensors("config")
    (text,) = event.tensor_proto.string_val or [b""]
    assert json.loads(text.decode().strip("`\n")) == about
    value = pytest.approx(summary["best_val_accuracy"])
    assert numbers["summary/best_val_accuracy", 2 * STEPS] == [value]
    (event,) = events.Tensors("curves")
    width, height, png = event.tensor_proto.string_val
    assert png == (logged / "curves.png").read_bytes()
    size = PIL.Image.open(io.BytesIO(png)).size
    assert size == (int(width), int(height))


def test_resume__cut_short__the_records_are_the_same_ones(taken_up, places):
    ids = _ids(taken_up.run_dir)
    assert ids == {n: kept["id"] for n, kept in taken_up.before.items()}
    client = _client()
    assert taken_up.status == "KILLED"
    run = client.get_run(ids["mlflow"])
    assert run.info.status == "FINISHED"
    named = client.search_runs(
        [run.info.experiment_id], "attributes.run_name = 'cut'"
    )
    assert len(named) == 1
    # W&B's parts, each of a process, have one id.
    parts = places.folder.glob(f"wandb/*-{ids['wandb']}")
    codes = []
    for part in sorted(parts):
        _, records = readers.from_wandb([part])
        assert {run.run_id for run in records["run"]} == {ids["wandb"]}
        codes.append(records["exit"][0].exit_code)
    assert codes == [1, 0]


def test_log__a_run_that_fails__its_records_say_so(
    server, tmp_path, monkeypatch
):
    _cut_short(monkeypatch, FloatingPointError("too far"))
    run_dir = tmp_path / "failed"
    assert main(_flags(run_dir, "--log=mlflow")) == 1
    kept = json.loads((run_dir / "loggers.json").read_text())
    info = _client().get_run(kept["mlflow"]["id"]).info
    assert info.status == "FAILED"


def test_log__many_runs__each_has_a_record_named_after_their_directory(
    server, tmp_path, monkeypatch
):
    in_this_process.use(monkeypatch)
    flags = [f for f in _flags("") if "run_dir" not in f and "backup" not in f]
    assert main([
        "compare", *flags[1:], "--epochs=1", "--methods=dpsgd,gnc",
        "--seeds=1", f"--out_dir={tmp_path / 'both'}", "--log=mlflow",
    ]) == 0  # fmt: skip
    client = _client()
    experiment = client.get_experiment_by_name("digits and more")
    found = client.search_runs([experiment.experiment_id], "tags.group='both'")
    ids = {
        json.loads(path.read_text())["mlflow"]["id"]
        for path in (tmp_path / "both" / "runs").glob("*/loggers.json")
    }
    assert {run.info.run_id for run in found} == ids and len(ids) == 2
    assert {r.data.params["method"] for r in found} == {"dpsgd", "gnc"}


@pytest.mark.parametrize("library", ["mlflow", "wandb"])
def test_log__without_the_extra__a_line_names_it_and_nothing_is_written(
    library, tmp_path, monkeypatch, capsys
):
    monkeypatch.setitem(sys.modules, library, None)
    assert main(_flags(tmp_path / "run", f"--log={library}")) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"--log={library} needs the package {library}" in line
    assert f"pip install 'tf-gnc[{library}]'" in line
    assert list(tmp_path.iterdir()) == []


def test_log__process_that_is_not_the_chief__writes_nothing(
    tmp_path, monkeypatch
):
    config = make_config(f"{THIS}:load", model=f"{THIS}:build", num_workers=2)
    placement = Placement(
        tf.distribute.get_strategy(), log_to=LogTo("tensorboard")
    )
    for is_chief in (True, False):
        workspace = Workspace(config, tmp_path / f"{is_chief}", placement)
        workspace.claim({})
        workspace.is_chief = is_chief
        assert len(workspace.records()) == int(is_chief)


def test_log__server_gone_in_mid_run__a_line_and_training_goes_on(
    server, plain, tmp_path, monkeypatch, capsys
):
    # The last test that needs the server.
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    ended = progress.EpochLines.on_epoch_end

    def stop(self, epoch, logs=None):
        ended(self, epoch, logs)
        if epoch == 0:
            server.stop()

    monkeypatch.setattr(progress.EpochLines, "on_epoch_end", stop)
    assert main(_flags(tmp_path / "run", "--log=mlflow,tensorboard")) == 0
    err = capsys.readouterr().err.splitlines()
    first, second = [line for line in err if line.startswith("mlflow")]
    assert "can't be written to now" in first and "the run goes on" in first
    assert second == "mlflow: 5 points were not logged."
    models = [
        keras.models.load_model(folder / "model.keras").get_weights()
        for folder in (plain, tmp_path / "run")
    ]
    for ours, theirs in zip(*models, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    kept = json.loads((tmp_path / "run" / "loggers.json").read_text())
    steps = [kept[name]["step"] for name in ("mlflow", "tensorboard")]
    assert steps == [STEPS, 2 * STEPS]
