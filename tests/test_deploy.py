"""The files for clusters: made from one place, parsed, and run in parts."""

import importlib.util
import pathlib
import re
import subprocess
import tomllib

import pytest
import yaml

from tf_gnc.cli import launch, train
from tf_gnc.cli.main import main

ROOT = pathlib.Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"


@pytest.fixture(scope="module")
def made():
    spec = importlib.util.spec_from_file_location("make", DEPLOY / "make.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _yaml(name):
    return list(yaml.safe_load_all((DEPLOY / name).read_text()))


def _programs(folder, **scripts):
    """Programs of these names, which write down how they are called."""
    for name, script in scripts.items():
        path = folder / name
        path.write_text(f'#!/bin/sh\necho "{name} $*" >> calls\n{script}\n')
        path.chmod(0o755)
    return {"PATH": f"{folder}:/usr/bin:/bin", "SLURM_JOB_ID": "17"}


def _calls(folder):
    return (folder / "calls").read_text().splitlines()


def test_files__are_what_make_makes_and_none_is_left_over(made):
    assert made.main(["--check"]) == 0
    others = {"make.py", "__pycache__"}
    assert {p.name for p in DEPLOY.iterdir()} - others == set(made.FILES)


def test_check__a_file_changed_by_hand__is_named(made, tmp_path, monkeypatch):
    monkeypatch.setattr(made, "FOLDER", tmp_path)
    made.main([])
    assert made.main(["--check"]) == 0
    (tmp_path / "Dockerfile").write_text("FROM scratch\n")
    assert made.main(["--check"]) == 1


def test_kubernetes_job__each_index__is_a_process_of_one_cluster(capfd):
    service, job = _yaml("kubernetes-job.yaml")
    spec = job["spec"]
    pod = spec["template"]["spec"]
    (container,) = pod["containers"]
    assert spec["completionMode"] == "Indexed"
    assert spec["completions"] == spec["parallelism"]
    # A pod's address is <job>-<index>.<service>.
    name = job["metadata"]["name"]
    assert pod["subdomain"] == service["metadata"]["name"]
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["selector"] == {"job-name": name}
    port = container["ports"][0]["containerPort"]
    last = str(spec["completions"] - 1)
    words = [
        word.replace("$(JOB_COMPLETION_INDEX)", last)
        for word in container["args"]
    ]
    given, _ = launch.build_flags().parse(words[1:])
    assert given["machines"].split(",") == [
        f"{name}-{n}.{pod['subdomain']}:{port}"
        for n in range(spec["completions"])
    ]
    ignored, disrupted, failed = spec["podFailurePolicy"]["rules"]
    assert (ignored["action"], ignored["onExitCodes"]["values"]) == (
        "Ignore", [75]
    )  # fmt: skip
    assert disrupted["action"] == "Ignore"
    assert (failed["action"], failed["onExitCodes"]["values"]) == (
        "FailJob", [2]
    )  # fmt: skip
    assert pod["restartPolicy"] == "Never"  # What such a policy asks for.
    # The last pod's command, as far as nothing is started.
    words.insert(1, "--dry_run")
    assert main(words) == 0
    out = capfd.readouterr().out
    assert f"process {last}:" in out and "1 replica" in out


def test_tfjob__restarts_after_75_and_has_the_name_that_is_looked_for():
    (job,) = _yaml("kubeflow-tfjob.yaml")
    worker = job["spec"]["tfReplicaSpecs"]["Worker"]
    # ExitCode would take 75 for a failure for good.
    assert worker["restartPolicy"] == "OnFailure"
    (container,) = worker["template"]["spec"]["containers"]
    assert container["name"] == "tensorflow"
    _check_train(container["args"])


def _check_train(words):
    """Parses the words as `tf-gnc` would; a run there can be taken up."""
    assert words[0] == "train"
    given, _ = train.build_flags().parse(words[1:])
    assert given["resume"] and given["run_dir"].startswith("gs://")
    train.config_of(given)


@pytest.mark.parametrize(
    ("code", "is_requeued"), [(75, True), (0, False), (1, False)]
)
def test_slurm__job_that_ends__requeues_itself_after_75_alone(
    code, is_requeued, tmp_path
):
    environment = _programs(tmp_path, srun=f"exit {code}", scontrol="exit 0")
    done = subprocess.run(
        ["bash", DEPLOY / "slurm.sbatch"], cwd=tmp_path, env=environment
    )
    assert done.returncode == code
    srun, *others = _calls(tmp_path)
    words = srun.split()
    assert "--distribution=block" in words
    _check_train(words[words.index("tf-gnc") + 1 :])
    assert others == ["scontrol requeue 17"] * is_requeued


@pytest.mark.parametrize("codes", [[75, 75, 0], [75, 1], [2]])
def test_vertex_ai__container__starts_again_after_75_alone(codes, tmp_path):
    (job,) = _yaml("vertex-ai.yaml")
    assert job["scheduling"]["restartJobOnWorkerRestart"] is True
    chief, workers = job["workerPoolSpecs"]
    assert chief["replicaCount"] == 1 and workers["replicaCount"] >= 1
    container = chief["containerSpec"]
    assert container == workers["containerSpec"]
    (tmp_path / "codes").write_text("\n".join(map(str, codes)))
    script = 'code=$(head -n1 codes); sed -i 1d codes; exit "$code"'
    environment = _programs(tmp_path, **{"tf-gnc": script})
    done = subprocess.run(
        [*container["command"], *container["args"]],
        cwd=tmp_path, env=environment, timeout=60,
    )  # fmt: skip
    assert done.returncode == codes[-1]
    calls = _calls(tmp_path)
    assert len(calls) == len(codes)
    _check_train(calls[0].split()[1:])


def test_dockerfile__instructions__copy_what_is_there_and_name_extras():
    lines = [
        line
        for line in (DEPLOY / "Dockerfile").read_text().splitlines()
        if line and not line.startswith("#")
    ]
    known = {"FROM", "ARG", "ENV", "WORKDIR", "COPY", "RUN", "ENTRYPOINT",
             "CMD"}  # fmt: skip
    assert {line.split()[0] for line in lines} <= known
    assert lines[0].startswith("FROM python:3.")
    for line in lines:
        if line.startswith("COPY"):
            for name in line.split()[1:-1]:
                assert (ROOT / name).exists(), name
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    (install,) = re.findall(r'pip install .*"\.\[(.*)\]"', "\n".join(lines))
    for variant in ("cpu", "cuda"):
        for extra in install.replace("${VARIANT}", variant).split(","):
            assert extra in extras
