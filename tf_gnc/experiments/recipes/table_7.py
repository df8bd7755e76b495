"""Table 7: ImageNet in large batches, as others published it, and ours."""

from tf_gnc import _files
from tf_gnc.experiments.compare.table import Table
from tf_gnc.experiments.recipes import RECIPES
from tf_gnc.experiments.recipes.paper import TABLE_7

_ROW = "imagenet-32768"


def table_7(directory: _files.AnyPath) -> Table:
    """Returns the published table, and a row of ours below.

    `directory` is that of `tf-gnc reproduce table2`, where runs of ours may
    lie. Those count that are the recipe's GNC, whatever else is there.
    """
    recipe = RECIPES[_ROW]
    rows = [
        [who, str(epochs), f"{batch:,}", f"{accuracy:g}"]
        for who, epochs, batch, accuracy in TABLE_7
    ]
    found, run = [], recipe.config("gnc")
    for path in sorted(directory.glob(f"{_ROW}/runs/*/summary.json")):
        about = _files.read_json(path.with_name("config.json"))
        if about is None:
            continue
        whole = run.replace(seed=about["config"]["seed"])
        if about["config"]["method"] == "gnc" and not list(
            whole.differences(about["config"])
        ):
            found.append(_files.read_json(path)["val_accuracy"])
    ours = f"{100 * max(found):.2f}" if found else "not run here"
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
        f"Ours: {recipe.command}, in {directory / _ROW}.",
    ]
    return Table(
        "ResNet-50 on ImageNet, test accuracy in %",
        ["", "Epochs", "Batch size", "Accuracy"],
        rows,
        notes,
    )
