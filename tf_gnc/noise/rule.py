r"""What a noise rule is: how far a worker steps aside to differentiate.

A rule is a pure function of tensors. It owns no variables, draws no hidden
random numbers and knows neither Keras models nor tf.distribute.

All displace worker i's weights by x_i = x - alpha * eta_t * s * direction_i and
differ in the direction; s is the filter's norm or 1. Rules whose length doesn't
follow the learning rate have x_i = x - alpha * s * direction_i. With a relative
length the direction is of length 1 in each filter and x_i - x a given share of
the filter's norm.

Symbols   x      the clean weights, one vector of P elements
          eta_t  the optimizer's learning rate at step t
          x_p    filter p of the weights (see tf_gnc.noise.layout)
          M      number of workers
"""

import re
from typing import Any, Literal, get_args

import ml_dtypes
import tensorflow as tf

from tf_gnc import _check
from tf_gnc.noise.at import At, check_needs
from tf_gnc.noise.layout import WeightLayout

Scaling = Literal["filter", "none"]
Statistics = Literal["displaced", "clean"]


class NoiseRule:
    """What all rules share: coefficient, scale, what is displaced, and when.

    A rule of your own says in `needs` what it is to be given, makes a vector
    of it in `direction`, and inherits the rest. What isn't needed is neither
    computed nor remembered nor reduced.

    Args:
        alpha: Coefficient of the noise, 0 or more. 0 turns the rule off.
        scaling: `"filter"` multiplies each filter's noise by the norm of that
            filter (Eqs. 5 and 6), `"none"` leaves the noise as it is (Eq. 3).
        include_vectors: Whether weights of rank 0 and 1, and biases of any
            rank, are displaced too (the gamma and beta of BatchNorm among
            them), each as one filter.
        relative: In place of the coefficient, the displacement of each filter
            as a share of the filter's norm, 0 or more, whatever the learning
            rate and the length of the direction. A filter of zeros, such as a
            bias at the start, stays where it is, and so does one whose
            direction is nothing but rounding. Displacements then don't sum to
            zero over the workers, even if the noise does.
        include: A pattern (a regular expression) that is searched in each
            weight's path; others aren't displaced, nor count in a norm over
            all weights. `"kernel|embedding"` leaves biases and norm layers
            out, `"gamma|beta"` takes norm layers alone. None for all.
        every: Displaces in steps 0, `every`, `2 * every`, ... alone, counted
            from 0. In between a step is that of `noise=None`, and a second
            pass isn't made.
        start_step: No step before it has noise.
        stop_step: The first step without noise again; None for never.

    Example:
        >>> class Away(NoiseRule):
        ...     needs = {"current"}  # a second pass: its own gradient at x
        ...     def direction(self, at):
        ...         return -at.current / tf.norm(at.current)
    """

    needs: frozenset[str] | set[str] = frozenset()
    """Names of vectors that `direction` uses, of `tf_gnc.noise.at.NEEDS`."""

    noise_dtype = "float32"
    """Dtype in which gradients of the step before are kept, if needed."""

    group: int | str = "all"
    """Over whom `current_mean` is taken: so many consecutive workers, a
    divisor of M, or `"all"`."""

    statistics: Statistics = "displaced"
    """Of rules with a second pass: which pass batch normalization's moving
    statistics are of."""

    follows_rate = True
    """Whether the displacement is a multiple of the learning rate."""

    coefficient = "alpha"
    """What the rule's own argument calls the coefficient."""

    usual: float | None = None
    """The coefficient if none is given; None if one must be."""

    def __init__(
        self,
        alpha: float | None = None,
        scaling: Scaling = "filter",
        include_vectors: bool = True,
        *,
        relative: float | None = None,
        include: str | None = None,
        every: int = 1,
        start_step: int = 0,
        stop_step: int | None = None,
        **named: float | None,
    ) -> None:
        if self.coefficient in named:  # A class may call it otherwise.
            alpha = named.pop(self.coefficient)
        if named:
            raise TypeError(
                f"{type(self).__name__} has no argument {next(iter(named))!r}."
            )
        self.scaling = _check.choice("scaling", scaling, get_args(Scaling))
        self.relative = relative
        if relative is not None:
            self._use_relative(alpha, relative)
            alpha = relative
        elif alpha is None:
            alpha = self.usual
        if alpha is None:
            raise ValueError(
                f"{type(self).__name__} needs a length, got neither "
                f"`{self.coefficient}` nor `relative`. Pass one of them."
            )
        self.alpha = _check.real(self.coefficient, alpha, minimum=0)
        self.include_vectors = _check.boolean(
            "include_vectors", include_vectors
        )
        self.include = None if include is None else _pattern(include)
        self._set_steps(every, start_step, stop_step)
        self.needs = check_needs(type(self).__name__, self.needs)
        if self.group != "all":
            _check.integer("group", self.group, minimum=1)
        _check.choice("statistics", self.statistics, get_args(Statistics))

    def _set_steps(
        self, every: int, start_step: int, stop_step: int | None
    ) -> None:
        self.every = _check.integer("every", every, minimum=1)
        self.start_step = _check.integer("start_step", start_step, minimum=0)
        if stop_step is not None:
            stop_step = _check.integer("stop_step", stop_step, minimum=0)
            if 0 < stop_step <= start_step:
                raise ValueError(
                    "`stop_step` must be above `start_step`, or 0 for no noise "
                    f"at all, got start_step={start_step} with "
                    f"stop_step={stop_step}."
                )
        self.stop_step = stop_step

    def _use_relative(self, alpha: float | None, relative: float) -> None:
        """Has the relative length stand in the coefficient's place."""
        if alpha not in (None, self.usual) or self.scaling != "filter":
            raise ValueError(
                f"`relative` stands in the place of `{self.coefficient}`, and "
                f"scales each filter, got relative={relative!r} with "
                f"{self.coefficient}={alpha!r} and scaling={self.scaling!r}. "
                "Leave the others out."
            )
        self.coefficient, self.follows_rate = "relative", False

    @property
    def remembers_gradients(self) -> bool:
        """Whether it needs gradients of the step before."""
        return bool(self.needs & {"previous", "previous_mean"})

    @property
    def subtracts_mean(self) -> bool:
        """Whether it needs both a worker's gradient and the mean of all."""
        pairs = {"previous", "previous_mean"}, {"current", "current_mean"}
        return any(pair <= self.needs for pair in pairs)

    @property
    def takes_two_passes(self) -> bool:
        """Whether it needs gradients at the clean weights of this step."""
        return bool(self.needs & {"current", "current_mean"})

    def is_active(self, step: tf.Tensor) -> tf.Tensor | None:
        """Returns whether a step has noise, a boolean; None for each step."""
        if (self.every, self.start_step, self.stop_step) == (1, 0, None):
            return None
        active = (step % self.every == 0) & (step >= self.start_step)
        if self.stop_step is not None:
            active &= step < self.stop_step
        return active

    def scale(
        self, weights: tf.Tensor, step_size: tf.Tensor, layout: WeightLayout
    ) -> tf.Tensor:
        """Returns what all workers' noise is multiplied by in this step.

        Args:
            weights: The clean weights, shape `(P,)`.
            step_size: alpha * eta_t, or alpha alone unless the rule follows
                the rate; a scalar or `(P,)`.
            layout: Where each weight lies in the vector.

        Returns:
            A vector of shape `(P,)`: alpha * eta_t * ||x_p|| with filter-wise
            scaling (Eqs. 5 and 6), alpha * eta_t without (Eq. 3).
        """
        scale = tf.cast(step_size, layout.dtype)
        if self.scaling == "filter":
            scale *= layout.filter_norms(weights)
        return tf.broadcast_to(self.included(scale, layout), [layout.size])

    def included(self, values: tf.Tensor, layout: WeightLayout) -> tf.Tensor:
        """Returns values with zeros for the weights that aren't displaced."""
        if not self.include_vectors:
            values *= layout.kernel_mask()
        if self.include is not None:
            values *= layout.path_mask(self.include)
        return values

    def direction(self, at: At) -> tf.Tensor:
        """Returns one worker's noise of this step, before scaling, `(P,)`."""
        raise NotImplementedError(
            f"{type(self).__name__} must implement `direction`."
        )

    def displace(
        self,
        weights: tf.Tensor,
        scale: tf.Tensor,
        noise: tf.Tensor,
        layout: WeightLayout,
    ) -> tf.Tensor:
        """Returns one worker's weights `x - scale * noise`, shape `(P,)`.

        It takes the clean weights, and what `scale` and `direction` returned
        for this step and worker. With a relative length the noise is first
        brought to length 1 in each filter.
        """
        if self.relative is not None:
            norms = layout.filter_norms(noise)
            noise = tf.where(
                norms > rounding_of(layout.dtype) * tf.norm(noise),
                tf.math.divide_no_nan(noise, norms),
                tf.zeros_like(noise),
            )
        return weights - scale * noise

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and repr(other) == repr(self)

    def __hash__(self) -> int:
        return hash(repr(self))

    def get_config(self) -> dict:
        """Returns the constructor's arguments; when, only if not always."""
        return {
            self.coefficient: self.alpha,
            "scaling": self.scaling,
            "include_vectors": self.include_vectors,
            **self._chosen(include=None, every=1, start_step=0, stop_step=None),
        }

    def _chosen(self, **defaults: Any) -> dict[str, Any]:
        """Returns those attributes that aren't at their defaults.

        Files and backups from before an argument was there are so the same.
        """
        return {
            name: getattr(self, name)
            for name, default in defaults.items()
            if getattr(self, name) != default
        }

    @classmethod
    def from_config(cls, config: dict) -> "NoiseRule":
        """Makes the rule from what `get_config` returned."""
        return cls(**config)

    def __repr__(self) -> str:
        pairs = self.get_config().items()
        arguments = ", ".join(f"{k}={v!r}" for k, v in pairs)
        return f"{type(self).__name__}({arguments})"


def rounding_of(dtype: str | tf.DType) -> float:
    """Returns the share of a vector that a few roundings of it can make."""
    return 8 * float(ml_dtypes.finfo(tf.as_dtype(dtype).as_numpy_dtype).eps)


def _pattern(include: str) -> str:
    """Returns a regular expression; refuses what isn't one."""
    try:
        re.compile(include)
    except (TypeError, re.error) as error:
        raise ValueError(
            "`include` must be a pattern, a regular expression such as "
            f"'kernel|embedding', got include={include!r} ({error})."
        ) from error
    return include
