"""Table 7: ImageNet in large batches, as others published it, and ours."""

from tf_gnc.experiments.compare.plan import Comparison
from tf_gnc.experiments.compare.table import Table
from tf_gnc.experiments.recipes.paper import TABLE_7


def table_7(comparison: Comparison, how: str) -> Table:
    """Returns the published table, and a row of ours below.

    `comparison` is where runs of ours may lie; `how` the command that makes
    them.
    """
    rows = [
        [who, str(epochs), f"{batch:,}", f"{accuracy:g}"]
        for who, epochs, batch, accuracy in TABLE_7
    ]
    found = {
        (method, seed): result.number("val_accuracy")
        for (method, seed), result in comparison.results().items()
        if method == "gnc" and result.summary is not None
    }
    run = comparison.plan.runs[0]
    ours = "not run here"
    if found:
        ours = f"{100 * max(found.values()):.2f}"
    rows.append(
        [
            f"tf_gnc, GNC, the best of {len(found) or 5}",
            str(run.epochs),
            f"{run.batch_size:,}",
            ours,
        ]
    )
    notes = [
        "Published: Haruki et al. (2019), arXiv:1906.10822, Table 7.",
        f"Ours: {how}, in {comparison.directory}.",
    ]
    return Table(
        "ResNet-50 on ImageNet, test accuracy in %",
        ["", "Epochs", "Batch size", "Accuracy"],
        rows,
        notes,
    )
