"""How many updates the paper's recipes make, and where their rates fall.

    python benchmarks/paper_updates.py

Needs no data: an epoch is 50,000 pictures of CIFAR or 1,281,167 of ImageNet.
Places are updates, counted from 1, with the epochs before them; a rate falls
with the first update that trains at the lower one. Recipes that agree in all
of it share a row.
"""

from types import SimpleNamespace

from tf_gnc.experiments.recipes import RECIPES, TABLES
from tf_gnc.experiments.recipes.recipe import Recipe
from tf_gnc.experiments.run.building import learning_rates, updates_of

NUM_TRAIN = {"cifar10": 50_000, "cifar100": 50_000, "imagenet2012": 1_281_167}
_COLUMNS = (
    "recipe", "epochs", "updates", "E x N / B", "dropped", "rate falls at",
    "switch",
)  # fmt: skip


def row_of(recipe: Recipe) -> tuple[str, ...]:
    """Returns what stands behind a recipe's name."""
    config = recipe.config(recipe.methods[-1])
    size, batch = NUM_TRAIN[config.dataset], config.batch_size
    images = SimpleNamespace(num_train=size)
    updates = updates_of(config, images)
    dropped = updates_of(config.replace(remainder="drop"), images)
    total = updates.before(config.epochs)
    rates = learning_rates(config, updates)(range(total)).numpy()
    falls = [s for s in range(1, total) if rates[s] < 0.5 * rates[s - 1]]

    def place(step: int) -> str:
        return f"{step + 1:,} ({round(step * batch / size)} epochs)"

    switch = config.settings.get("switch_epoch")
    return (
        str(config.epochs),
        f"{total:,}",
        f"{config.epochs * size / batch:,.1f}",
        f"{dropped.before(config.epochs):,}",
        ", ".join(map(place, falls)),
        place(updates.before(switch)) if switch else "-",
    )


def main() -> None:
    """Prints the table."""
    print(f"| {' | '.join(_COLUMNS)} |\n{'|---' * len(_COLUMNS)}|")
    names: dict[tuple[str, ...], list[str]] = {}
    for table in ("table2", "table1", "fig3c"):
        for name in TABLES[table]:
            names.setdefault(row_of(RECIPES[name]), []).append(name)
    for row, having in names.items():
        print(f"| {' | '.join([', '.join(having), *row])} |")


if __name__ == "__main__":
    main()
