"""Fig. 4 (b): do losses vary more along gradient noise than along random noise?

    tf-gnc train --method=gnc --checkpoint_every=20 --run_dir=RUN
    python benchmarks/displaced_losses.py RUN

At each checkpoint of a GNC run the workers' models are displaced once by
gradient noise and once by random noise, brought to the same length, and their
losses taken on the same rows. A worker's rows alone make its loss differ from
the others', so the table has what the displacement adds: of each worker's loss
less its loss at the clean weights, the mean and the standard deviation over
the workers.
"""

import argparse
import pathlib

import numpy as np

from tf_gnc import RandomNoise, analysis
from tf_gnc.experiments.config import RunConfig
from tf_gnc.experiments.figures.recorded_runs import read_run
from tf_gnc.experiments.run import recording
from tf_gnc.experiments.run.building import load_images
from tf_gnc.experiments.run.measure import (
    fill_noise,
    find_models,
    load_checkpoint,
)

_LENGTHS = (0.01, 0.05, 0.1)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=pathlib.Path)
    run = read_run(parser.parse_args().run)
    config = RunConfig.from_dict(run.config)
    images = load_images(config)
    batch = recording.batch_of_step(config, images, 0)
    print(
        f"{config.dataset}, {config.model}, {config.num_workers} workers x "
        f"{config.examples_per_worker} examples\n"
        "epoch  ||x_i-x||/||x||  clean loss  rise, GNC        rise, RNC"
        "        std ratio"
    )
    for epoch, path in find_models(run).items():
        model = load_checkpoint(path, config, images, epoch)
        step = int(model.optimizer.iterations.numpy())
        fill_noise(model, config, images, step - 1)
        none = analysis.sharpness(model, batch, noise=None)
        for length in _LENGTHS:
            rises = [
                np.subtract(
                    analysis.sharpness(
                        model, batch, noise=rule, relative_displacement=length
                    )["losses"],
                    none["losses"],
                )
                for rule in ("model", RandomNoise(alpha=1.0, seed=0))
            ]
            cells = [f"{r.mean():+.4f} ± {r.std():.4f}" for r in rises]
            ratio = rises[0].std() / rises[1].std()
            print(
                f"{epoch:>5}  {length:>15}  {none['clean_loss']:>10.4f}  "
                f"{cells[0]:<16} {cells[1]:<16} {ratio:>9.1f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
