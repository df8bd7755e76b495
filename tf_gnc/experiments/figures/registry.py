"""Which figures there are: their numbers in the paper, captions and needs."""

import dataclasses
import types
from collections.abc import Callable, Collection, Mapping, Sequence

import matplotlib
from matplotlib.figure import Figure

from tf_gnc.experiments.figures import loss_shape, paper
from tf_gnc.experiments.figures.recorded_runs import RecordedRun, Runs
from tf_gnc.experiments.figures.style import STYLE


@dataclasses.dataclass(frozen=True)
class View:
    """What to look at.

    Attributes:
        layer: The weight whose eigenvalues are drawn; None for a convolution
            kernel in the middle of the network.
        around: Epochs around which losses are drawn; None for all.
    """

    layer: str | None = None
    around: Sequence[float] | None = None


@dataclasses.dataclass(frozen=True)
class Drawing:
    """A figure that can be drawn.

    Attributes:
        title: What it shows, after its number in the paper.
        caption: What the lines are, and what differs from the paper.
        draw: Makes the figure of runs that have what it takes; None if there
            is none to be made.
        measures: A run must have recorded one of them; none is needed if this
            is empty.
        fewest: How many runs it takes.
        looks_at: The field of a `View` that `draw` takes too, if any.
        asked: Whether it is only drawn if that field isn't None.
    """

    title: str
    caption: str
    draw: Callable[..., Figure | None]
    measures: Sequence[str] = ()
    fewest: int = 1
    looks_at: str = ""
    asked: bool = False

    def fits(self, run: RecordedRun) -> bool:
        """Tells whether a run has what it takes."""
        if not self.measures:
            return bool(run.metrics)
        return any(map(run.has, self.measures))


def draw_all(
    runs: Runs, view: View, names: Collection[str] | None = None
) -> dict[str, Figure]:
    """Draws all figures for which there are data, by their names.

    Or those of them that are in `names`.

    Raises:
        ValueError: If there is no such layer, or no loss near that epoch.
    """
    found = {}
    with matplotlib.rc_context(STYLE):
        for name, drawing in DRAWINGS.items():
            flag = drawing.looks_at
            chosen = {flag: getattr(view, flag)} if flag else {}
            if drawing.asked and chosen[flag] is None:
                continue
            if names is not None and name not in names:
                continue
            having = list(filter(drawing.fits, runs))
            if len(having) >= drawing.fewest:
                figure = drawing.draw(having, **chosen)
                if figure is not None:
                    found[name] = figure
            elif chosen.get(flag) is not None:
                measure, value = drawing.measures[0], chosen[flag]
                if not isinstance(value, str):
                    value = ",".join(f"{epoch:g}" for epoch in value)
                raise ValueError(
                    f"`{flag}` looks at what the measure {measure!r} has "
                    f"found, got {flag}={value} and no run that has "
                    f"recorded it. Leave --{flag} out, or measure with "
                    f"--measure={measure}."
                )
    return found


_LOSSES = (
    "Bold: loss of the clean weights x<sub>t</sub>. Shaded: from the smallest "
    "to the largest loss of the workers' displaced models "
    "x<sup>i</sup><sub>t</sub>, each on the batch of the step, the same rows "
    "for all. Where the noise points to sharper directions the losses vary "
    "more. The paper doesn't say on which data they are. Where a panel says "
    "<em>own rows</em>, each worker's loss is that of its own rows, and part "
    "of the range is that of the rows; and where only loss_spread was "
    "recorded, the bold line is the mean of the displaced workers."
)
_SMOOTHNESS = (
    "Of eight points along the gradient, from 1/2 to 2 times the learning "
    "rate: (a) smallest to largest loss; (b) smallest to largest l2 distance "
    "of the gradient there from that at the start; (c) the largest such "
    "distance over the length of the step. Convolved is with the noise of the "
    "coming step, at each worker's displaced weights. All on that step's own "
    "batch (A.6). "
)

DRAWINGS: Mapping[str, Drawing] = types.MappingProxyType(
    {
        "fig3a_accuracy": Drawing(
            "Fig. 3(a), 7(a): accuracy along training",
            "Accuracy on the test data at the end of each epoch, at the clean "
            "weights.",
            paper.draw_accuracy,
        ),
        "fig3b_similarity": Drawing(
            "Fig. 3(b), 3(c), 7(b): cosine similarity of the full and the "
            "large-batch gradient",
            "The full gradient is that of the whole training set, not "
            "augmented, at the clean weights; the large-batch gradient is the "
            "mean over the workers at their displaced weights (Eq. 3), "
            "without noise for dpsgd, on the batch of the step.",
            paper.draw_similarity,
            ("similarity",),
        ),
        "fig4a_condition_numbers": Drawing(
            "Fig. 4(a), upper: condition numbers of the noise's covariance",
            "Largest over second-smallest eigenvalue, one line for each "
            "convolution or dense kernel; larger is more anisotropic. Kernels "
            "with fewer weights than workers have none. Differs from the "
            "paper: random noise is taken as it is used, u / |u| filter by "
            "filter (Eq. 5).",
            paper.draw_condition_numbers,
            ("spectrum",),
        ),
        "fig4a_eigenvalues": Drawing(
            "Fig. 4(a), lower: eigenvalues of the noise's covariance, one "
            "layer",
            "Percentiles over the eigenvalues, as many as there are workers. "
            "The smallest is left out: it is zero, since the workers' mean is "
            "subtracted. Another layer: --layer.",
            paper.draw_eigenvalues,
            ("spectrum",),
            looks_at="layer",
        ),
        "fig4bc_losses": Drawing(
            "Fig. 4(b), 4(c), 8: losses of the displaced models",
            f"{_LOSSES} A part of it: --around.",
            paper.draw_losses,
            ("sharpness", "loss_spread"),
        ),
        "fig4bc_losses_around": Drawing(
            "Fig. 4(b), 4(c), 8: losses of the displaced models, around "
            "some epochs",
            f"{_LOSSES} An epoch before and after those chosen.",
            paper.draw_losses,
            ("sharpness", "loss_spread"),
            looks_at="around",
            asked=True,
        ),
        "fig5_smoothness": Drawing(
            "Fig. 5, 9: smoothness of the loss, plain and convolved",
            f"{_SMOOTHNESS}Differs from the paper: both are taken at the same "
            "weights, those of one run; the figure that compares runs, as the "
            "paper does, is there if there are several.",
            loss_shape.draw_plain_and_convolved,
            ("smoothness",),
        ),
        "fig5_runs": Drawing(
            "Fig. 5, 9: smoothness of the loss that each run trains on",
            f"{_SMOOTHNESS}Each run is convolved with its own noise; dpsgd, "
            "the paper's baseline, has none.",
            loss_shape.draw_as_trained,
            ("smoothness",),
            fewest=2,
        ),
        "fig10_training_loss": Drawing(
            "Fig. 10, 11: training loss",
            "Mean over the workers at the weights they train at. Differs from "
            "the paper: mean over each epoch, unless loss_spread was recorded "
            "more often (--probe=loss_spread --probe_every=1 for every step).",
            paper.draw_training_loss,
        ),
        "landscape": Drawing(
            "Loss around the weights, along random directions, not in the "
            "paper",
            "Li et al. (2018): f(x + a d), with each filter of d as long as "
            "that of x, at the clean weights x and on one batch. Along one "
            f"direction {loss_shape.MOST} epochs at most are drawn, "
            "along two the last one alone.",
            loss_shape.draw_landscape,
            ("landscape",),
        ),
        "noise": Drawing(
            "Size of the noise, not in the paper",
            "Means over the workers. Noise norm: |&omega;<sub>i</sub>| before "
            "any scaling. Relative displacement: |x<sub>i</sub> - x| / |x|. "
            "Noise scale: B<sub>simple</sub> of McCandlish et al. (2018), "
            "from the workers' gradients, at the clean weights (sharpness) or "
            "the displaced ones (gradient_noise_scale); a gap is where noise "
            "drowns the gradient.",
            paper.draw_noise,
            (
                "noise_norm",
                "relative_displacement",
                "gradient_noise_scale",
                "sharpness",
            ),
        ),
    }
)
"""All figures, by the names of their files."""
