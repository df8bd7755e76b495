"""How many updates the paper's recipes make, and where their rates fall.

    python benchmarks/paper_updates.py

Needs no data: an epoch is 50,000 pictures of CIFAR or 1,281,167 of ImageNet.
Places are updates, counted from 1, with the epoch beside; a rate falls with the
first update that trains at the lower one.
"""

from types import SimpleNamespace

from tf_gnc.experiments.recipes import RECIPES, TABLES
from tf_gnc.experiments.run.building import learning_rates, updates_of

NUM_TRAIN = {"cifar10": 50_000, "cifar100": 50_000, "imagenet2012": 1_281_167}
# What the paper says: epochs and batch sizes of Table 3, divided.
PUBLISHED = {
    ("cifar10", 8_192): "976",
    ("imagenet2012", 131_072): "879",
    ("imagenet2012", 32_768): "3,518",
}


def main() -> None:
    """Prints the table."""
    print("| recipe | updates | dropped | rate falls at | switch | paper |")
    print("|---|---|---|---|---|---|")
    for name in TABLES["table2"]:
        config = RECIPES[name].config("gnc_to_rnc")
        images = SimpleNamespace(num_train=NUM_TRAIN[config.dataset])
        updates = updates_of(config, images)
        dropped = updates_of(config.replace(remainder="drop"), images)
        total = updates.before(config.epochs)
        rates = [
            float(r) for r in learning_rates(config, updates)(range(total))
        ]
        falls = [
            s + 1 for s in range(1, total) if rates[s] < 0.5 * rates[s - 1]
        ]
        switch = updates.before(config.settings["switch_epoch"]) + 1
        published = PUBLISHED.get((config.dataset, config.batch_size), "-")
        print(
            f"| {name} | {total:,} | {dropped.before(config.epochs):,} | "
            f"{', '.join(f'{s:,}' for s in falls)} | {switch:,} (after "
            f"{config.settings['switch_epoch']} epochs) | {published} |"
        )


if __name__ == "__main__":
    main()
