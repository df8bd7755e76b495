"""The paper's schedules: from batch sizes and epochs to rates and steps."""

from tf_gnc import _check
from tf_gnc.schedules.composed import FinalCollapse, WarmUp
from tf_gnc.schedules.decays import PolynomialDecay, StepDecay

# Table 4, by batch size. They are in no proportion to it.
_IMAGENET_RATES = {32_768: 23.0, 131_072: 42.0}
# T = 4,120 of appendix A.5, in examples, and the epochs that it goes with.
_DECAY_EXAMPLES = 4_120 * 32_768
_EPOCHS = 90


def linear_scaling(
    base_rate: float, base_batch_size: int, batch_size: int
) -> float:
    r"""Returns the learning rate in proportion to the batch size.

    :math:`\eta = \eta_{base} \, B / B_{base}`.

    Paper: Haruki et al. (2019), arXiv:1906.10822, appendix A.4, after the
    linear scaling rule of Goyal et al. (2017), arXiv:1706.02677.
    Deviation from the paper: none.

    Args:
        base_rate: Rate that is known to work, at least 0.
        base_batch_size: Examples per update at which it does, at least 1.
        batch_size: Examples per update to find the rate for, summed over
            all workers, at least 1.

    Raises:
        ValueError: If an argument is out of its range.

    Example:
        >>> linear_scaling(0.1, base_batch_size=128, batch_size=8192)
        6.4
    """
    base_rate = _check.real("base_rate", base_rate, minimum=0)
    base_size = _check.integer("base_batch_size", base_batch_size, minimum=1)
    batch_size = _check.integer("batch_size", batch_size, minimum=1)
    return base_rate * (batch_size / base_size)


def cifar_schedule(
    batch_size: int,
    steps_per_epoch: int,
    *,
    epochs: int = 160,
    base_rate: float = 0.1,
    small_batch_size: int = 32,
) -> WarmUp:
    r"""Builds the paper's schedule for CIFAR-10 and CIFAR-100.

    Warm-up over the first 1/16 of all steps (10 epochs of 160), from the rate
    that linear scaling gives one worker's small batch to the rate that it
    gives the whole batch; division by 10 after 1/2 (epoch 80) and after 3/4
    (epoch 120) of all steps.

    Paper: Haruki et al. (2019), arXiv:1906.10822, appendix A.4, Table 4 and
    Fig. 6 (a). Its start rate of 0.025 is 0.1 scaled from 128 to 32 examples,
    and its initial rates of 3.2 and 6.4 are 0.1 scaled to 4,096 and 8,192.
    `base_rate=0.001` gives the exception it made for Fig. 3 (c): start
    0.00025 and initial rates of 0.064, 0.032 and 0.016.
    Deviation from the paper: none at 160 epochs. Other lengths keep the
    fractions, rounded up to whole steps.

    Args:
        batch_size: Examples per update, summed over all workers.
        steps_per_epoch: Updates per epoch, at least 1.
        epochs: Length of the run, at least 1. A run needs two steps or more,
            so that its two decays fall on different steps.
        base_rate: Rate at 128 examples per update.
        small_batch_size: Examples per worker and update.

    Raises:
        ValueError: If an argument is out of its range or the run too short.

    Example:
        >>> schedule = cifar_schedule(batch_size=8192, steps_per_epoch=6)
        >>> [round(float(schedule(6 * e)), 4) for e in (0, 5, 10, 80, 120)]
        [0.025, 3.2125, 6.4, 0.64, 0.064]
    """
    per_epoch = _check.integer("steps_per_epoch", steps_per_epoch, minimum=1)
    total = _check.integer("epochs", epochs, minimum=1) * per_epoch
    if total < 2:
        raise ValueError(
            "The run must have at least two steps to hold two decays, got "
            f"epochs={epochs} with steps_per_epoch={steps_per_epoch}. "
            "Train longer, or use a constant rate."
        )
    small = _check.integer("small_batch_size", small_batch_size, minimum=1)
    # -(-a // b) is a / b rounded up, exact for whole numbers of any size.
    half, three_quarters = -(-total // 2), -(-3 * total // 4)
    return WarmUp(
        start=linear_scaling(base_rate, 128, small),
        steps=-(-total // 16),
        then=StepDecay(
            linear_scaling(base_rate, 128, batch_size), (half, three_quarters)
        ),
    )


def imagenet_schedule(
    batch_size: int,
    steps_per_epoch: int,
    *,
    epochs: int = 90,
    initial_rate: float | None = None,
    start_rate: float = 1.0,
    decay_steps: int | None = None,
) -> WarmUp:
    r"""Builds the paper's schedule of the global rate for ImageNet, with LARS.

    Warm-up over the first 5 epochs of 90 from 1.0 to the initial rate, 23.0
    or 42.0; from there :math:`\gamma_{initial} (1 - t / T)^2`; divided by 5
    from epoch 80 on.

    Paper: Haruki et al. (2019), arXiv:1906.10822, appendix A.5, Table 4 and
    Fig. 6 (b).
    Deviation from the paper: none in its numbers. Where it is silent:

    - :math:`t` counts from the end of the warm-up. The paper ramps up to the
      initial rate, "after which" the polynomial rules; counted from step 0
      the polynomial would stand at 20.9 there, not at 23. For that reading
      use `WarmUp(1.0, n, FinalCollapse(PolynomialDecay(23.0, 4120), 16 * n))`
      with n the steps of 5 epochs.
    - :math:`T = 4120` is one number for two batch sizes. Here it belongs to
      32,768 examples, of which 90 epochs take 3,519 steps, so that the rate
      is above zero to the end. For 131,072 examples it is 1,030: the same
      curve over the epochs.

    Args:
        batch_size: Examples per update, summed over all workers.
        steps_per_epoch: Updates per epoch, at least 1.
        epochs: Length of the run, at least 1. Other lengths keep the
            fractions, rounded up to whole steps.
        initial_rate: Rate at the end of the warm-up, at least 0. None takes
            the paper's, which exists for 32,768 and 131,072 examples only.
        start_rate: Rate at step 0, at least 0.
        decay_steps: T. None scales the paper's to `batch_size` and `epochs`,
            which suits data sets as large as ImageNet.

    Raises:
        ValueError: If an argument is out of its range, if the paper has no
            rate for the batch size, or if the rate would be zero before the
            run ends.

    Example:
        >>> schedule = imagenet_schedule(batch_size=32768, steps_per_epoch=40)
        >>> [round(float(schedule(40 * e)), 4) for e in (0, 5, 79, 80, 90)]
        [1.0, 23.0, 1.8233, 0.3399, 0.1405]
    """
    batch_size = _check.integer("batch_size", batch_size, minimum=1)
    per_epoch = _check.integer("steps_per_epoch", steps_per_epoch, minimum=1)
    epochs = _check.integer("epochs", epochs, minimum=1)
    if initial_rate is None:
        if batch_size not in _IMAGENET_RATES:
            raise ValueError(
                "The paper has an initial rate for a `batch_size` of "
                f"{' or '.join(map(str, _IMAGENET_RATES))} only, got "
                f"batch_size={batch_size}. Pass `initial_rate` as well."
            )
        initial_rate = _IMAGENET_RATES[batch_size]
    if decay_steps is None:
        decay_steps = -(-_DECAY_EXAMPLES * epochs // (batch_size * _EPOCHS))
    total = epochs * per_epoch
    warm_up = -(-5 * total // _EPOCHS)
    decay = PolynomialDecay(initial_rate, decay_steps, after=warm_up)
    if warm_up + decay.steps < total:
        raise ValueError(
            f"The rate would be zero from step {warm_up + decay.steps} on, "
            f"before the run's {total} steps are done, got "
            f"batch_size={batch_size}, steps_per_epoch={per_epoch}, "
            f"epochs={epochs} and decay_steps={decay.steps}. Pass a longer "
            f"`decay_steps`, for example {-(-4_120 * total // 3_519)}."
        )
    collapse = FinalCollapse(decay, -(-80 * total // _EPOCHS))
    return WarmUp(start_rate, warm_up, collapse)
