"""Writes the files of this folder: what starts a run on each kind of cluster.

    python deploy/make.py            # write them anew
    python deploy/make.py --check    # 1 if one isn't what this file says

Change a value here, not in the files. Every one of them restarts a run that was
stopped (exit code 75) or has died, which then goes on from its backup in the
bucket: that is what `--resume` and a `--run_dir` that all machines see are for.
"""

import pathlib
import sys

FOLDER = pathlib.Path(__file__).parent

NAME = "tf-gnc"
IMAGE = "REGISTRY/tf-gnc:latest"
PROCESSES = 4
PORT = 2222
BUCKET = "gs://BUCKET"
TRAIN = [
    "train", "--recipe=imagenet-32768", "--method=gnc",
    f"--data_dir={BUCKET}/tensorflow_datasets",
    f"--run_dir={BUCKET}/runs/imagenet-gnc", "--resume",
]  # fmt: skip
"""What all processes run together."""

RESTART = 75
SECONDS_TO_SAVE = 120
"""How long a process may take for its backup when it is told to stop."""

HEAD = "# Made by deploy/make.py; change it there.\n"


def dockerfile() -> str:
    """Returns the image of a CPU or, with CUDA's libraries, a GPU."""
    return f"""{HEAD}#   docker build -f deploy/Dockerfile -t {IMAGE} .
#   docker build -f deploy/Dockerfile --build-arg VARIANT=cuda -t {IMAGE} .
# VARIANT is an extra of the package: cpu, or cuda, which brings CUDA's
# libraries; the machine then needs NVIDIA's driver and container toolkit alone.
FROM python:3.11-slim
ARG VARIANT=cpu
ENV PYTHONUNBUFFERED=1 TF_CPP_MIN_LOG_LEVEL=2
WORKDIR /src
COPY setup.py pyproject.toml README.md LICENSE ./
COPY tf_gnc tf_gnc
RUN pip install --no-cache-dir ".[${{VARIANT}},gcs]"
WORKDIR /work
ENTRYPOINT ["tf-gnc"]
CMD ["--help"]
"""


def kubernetes_job() -> str:
    """Returns an indexed Job and the service that names its pods."""
    machines = ",".join(
        f"{NAME}-{rank}.{NAME}:{PORT}" for rank in range(PROCESSES)
    )
    return f"""{HEAD}# kubectl apply -f deploy/kubernetes-job.yaml
# A pod's name is the Job's and its index; the service makes it an address.
apiVersion: v1
kind: Service
metadata:
  name: {NAME}
spec:
  clusterIP: None
  # A pod must be found before it is ready: they wait for each other.
  publishNotReadyAddresses: true
  selector:
    job-name: {NAME}
  ports:
    - port: {PORT}
---
apiVersion: batch/v1
kind: Job
metadata:
  name: {NAME}
spec:
  completionMode: Indexed
  completions: {PROCESSES}
  parallelism: {PROCESSES}
  backoffLimit: 12
  podFailurePolicy:
    rules:
      # Stopped, and saved: started again, and not counted.
      - action: Ignore
        onExitCodes:
          containerName: train
          operator: In
          values: [{RESTART}]
      - action: Ignore
        onPodConditions:
          - type: DisruptionTarget
      # A command that can't be run won't do better.
      - action: FailJob
        onExitCodes:
          containerName: train
          operator: In
          values: [2]
  template:
    spec:
      subdomain: {NAME}
      restartPolicy: Never
      terminationGracePeriodSeconds: {SECONDS_TO_SAVE}
      containers:
        - name: train
          image: {IMAGE}
          args:
            - launch
            - --machines={machines}
            - --machine_rank=$(JOB_COMPLETION_INDEX)
            - --
{_items(TRAIN, 12)}
          ports:
            - containerPort: {PORT}
"""


def kubeflow_tfjob() -> str:
    """Returns a TFJob of Kubeflow's training operator, which sets TF_CONFIG."""
    return f"""{HEAD}# kubectl apply -f deploy/kubeflow-tfjob.yaml
apiVersion: kubeflow.org/v1
kind: TFJob
metadata:
  name: {NAME}
spec:
  runPolicy:
    backoffLimit: 12
    cleanPodPolicy: Running
  tfReplicaSpecs:
    Worker:
      replicas: {PROCESSES}
      # The policy ExitCode takes all codes below 128 for final, {RESTART} too.
      restartPolicy: OnFailure
      template:
        spec:
          terminationGracePeriodSeconds: {SECONDS_TO_SAVE}
          containers:
            - name: tensorflow  # The operator looks for this name.
              image: {IMAGE}
              args:
{_items(TRAIN, 16)}
              ports:
                - name: tfjob-port
                  containerPort: {PORT}
"""


def slurm() -> str:
    """Returns a batch script, which requeues itself."""
    return f"""#!/usr/bin/env bash
{HEAD}# sbatch deploy/slurm.sbatch
#SBATCH --job-name={NAME}
#SBATCH --nodes={PROCESSES}
#SBATCH --ntasks-per-node=1
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=TERM@{SECONDS_TO_SAVE}
# The tasks find each other by Slurm's own variables. `block` keeps the order of
# the nodes, in which they are numbered.
srun --distribution=block --kill-on-bad-exit=1 \\
  tf-gnc {_words(TRAIN)}
code=$?
if [ "$code" -eq {RESTART} ]; then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
"""


def vertex_ai() -> str:
    """Returns a custom job of Vertex AI, which sets TF_CONFIG."""
    loop = (
        f"while true; do tf-gnc {_words(TRAIN)}; code=$?; "
        f'[ "$code" -eq {RESTART} ] || exit "$code"; done'
    )

    def pool(replicas: int) -> str:
        return f"""  - replicaCount: {replicas}
    machineSpec:
      machineType: n1-standard-16
    containerSpec:
      imageUri: {IMAGE}
      command: ["bash", "-c"]
      args:
        - '{loop}'
"""

    return f"""{HEAD}# gcloud ai custom-jobs create --region=REGION \\
#   --display-name={NAME} --config=deploy/vertex-ai.yaml
# The first pool is the chief, the second the other workers. A lost machine
# restarts all of them.
workerPoolSpecs:
{pool(1)}{pool(PROCESSES - 1)}scheduling:
  restartJobOnWorkerRestart: true
"""


FILES = {
    "Dockerfile": dockerfile,
    "kubernetes-job.yaml": kubernetes_job,
    "kubeflow-tfjob.yaml": kubeflow_tfjob,
    "slurm.sbatch": slurm,
    "vertex-ai.yaml": vertex_ai,
}


def _items(words: list[str], indent: int) -> str:
    return "\n".join(f"{' ' * indent}- {word}" for word in words)


def _words(words: list[str]) -> str:
    return " ".join(words)


def main(arguments: list[str]) -> int:
    """Writes the files, or with --check tells whether they are as here."""
    wrong = 0
    for name, make in FILES.items():
        path, text = FOLDER / name, make()
        if arguments != ["--check"]:
            path.write_text(text)
        elif not path.exists() or path.read_text() != text:
            wrong = 1
            print(f"{path} isn't what deploy/make.py makes; run it.")
    return wrong


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
