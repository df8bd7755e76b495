"""LARS: momentum SGD with a rate of its own for each weight.

The optimizer keeps the state and knows which weights are left out; the
arithmetic, and its symbols, are in tf_gnc.optimizers.trust. The gradient that
arrives is already the mean over all workers, so norms need no reduction.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import keras
import tensorflow as tf

from tf_gnc import _check, _keras_compat
from tf_gnc.optimizers import exclusion, trust
from tf_gnc.optimizers.momentum import LearningRate, MomentumSGD

_NOISE_RATES = ("global", "layer")
_NOT_YET = -1.0  # No local rate is negative.


@keras.saving.register_keras_serializable(package="tf_gnc")
class LARS(MomentumSGD):
    r"""Layer-wise adaptive rate scaling.

    .. math:: \rho = \frac{\tau \|x\|}{\|g\| + \lambda \|x\|}, \qquad
              v \leftarrow m v - \gamma \rho (g + \lambda x), \qquad
              x \leftarrow x + v

    :math:`\rho` is the trust ratio and :math:`\gamma \rho` the local rate of
    a variable; norms are over whole variables.

    Paper: Haruki et al. (2019), arXiv:1906.10822, appendix A.5 (the local
    rate) and A.3 (the velocity), after You et al. (2017), arXiv:1708.03888.
    Deviation from the paper: none where its formula has a value. It says
    neither which weights are adapted nor what happens to a weight of zeros,
    whose local rate would stay 0: here biases and normalization go without
    adaptation and decay, and :math:`\rho = 1` where :math:`x = 0`, or where
    :math:`g = 0` and :math:`\lambda = 0`.

    The published forms differ; `variant` chooses one:

    - `"paper"`: as above.
    - `"tf_models"`: :math:`\rho = \tau \|x\| / \|g + \lambda x\|`, the norm of
      the decayed gradient. With `classic_momentum=False` the ratio is that of
      the velocity, :math:`v \leftarrow m v + g + \lambda x`,
      :math:`\rho = \tau \|x\| / \|v\|`, :math:`x \leftarrow x - \gamma\rho v`.
      :math:`\rho = 1` where a norm is zero. Source: github.com/tensorflow/
      models, official/modeling/optimization/lars.py.
    - `"mlperf"`: the paper's with :math:`\varepsilon = 10^{-7}` added to the
      denominator and :math:`\rho = 1` where :math:`g = 0`, whatever
      :math:`\lambda`. Source: github.com/mlcommons/training,
      image_classification/tensorflow2/lars_optimizer.py.
    - `"larc"`: :math:`\varepsilon = 10^{-8}`, :math:`\tau = 0.02` and, with
      `clip`, a local rate of at most the global one,
      :math:`\min(\rho, \gamma)`. The velocity is PyTorch's, :math:`v
      \leftarrow m v + \rho (g + \lambda x)`, :math:`x \leftarrow x - \gamma
      v`. Where a norm is zero, :math:`\rho = 1` and no decay. Source:
      github.com/NVIDIA/apex, apex/parallel/LARC.py, around torch.optim.SGD.

    - `"chainer"`: what the authors ran on. :math:`\rho = \tau \|x\| / (\|g\|
      + \lambda \|x\| + \varepsilon)` with :math:`\varepsilon = 10^{-9}`
      where :math:`\|x\| > 10^{-2}`, else :math:`\rho = \tau`; every variable
      is adapted and decayed, biases and normalization too. Source:
      github.com/chainer/chainer, chainer/optimizer_hooks/gradient_lars.py,
      around its MomentumSGD at the rate :math:`\gamma \tau`.

    None of the sources agrees with another on what to leave out; by default
    it is the same for all but Chainer's. Their Nesterov momentum is not
    offered.

    Sparse gradients are made dense. Variables of 16 bits are updated in
    float32 and rounded when they are stored.

    Args:
        learning_rate: gamma; what `MomentumSGD` takes.
        momentum: m, from 0 to 1.
        weight_decay: lambda, at least 0, inside the gradient.
        variant: `"paper"`, `"tf_models"`, `"mlperf"`, `"larc"` or
            `"chainer"`.
        trust_coefficient: tau, above 0. None takes the variant's: 0.001, or
            0.02 for LARC.
        exclude: Regular expressions, one or several. A variable in whose
            `path` one of them is found (`re.search`) follows plain momentum
            at the global rate, without decay. None takes the variant's:
            biases and what normalization layers call `gamma` and `beta`, or
            nothing, `()`, for Chainer's.
        noise_rate: What GNC and RNC take for eta: `"global"`, gamma, or
            `"layer"`, each variable's own local rate of the step before
            (gamma at the first step). See `noise_rates`.
        epsilon: Added to the denominator, at least 0. None takes the
            variant's.
        clip: LARC's alone. None is True there.
        classic_momentum: Whether the rates stand inside the velocity; only
            `"tf_models"` leaves the choice. None takes the variant's.
        **kwargs: What `keras.optimizers.Optimizer` takes besides; see
            `MomentumSGD`.

    Raises:
        ValueError: If an argument is out of its range, unknown, or means
            nothing to the variant.

    Example:
        >>> x = keras.Variable([3.0, 4.0])  # norm 5
        >>> optimizer = LARS(0.5, momentum=0.0, trust_coefficient=1.0)
        >>> optimizer.apply([tf.constant([2.0, 0.0])], [x])  # 0.5 * 5/2 * 2
        >>> x.numpy().tolist()
        [0.5, 4.0]
    """

    def __init__(
        self,
        learning_rate: LearningRate,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        *,
        variant: str = "paper",
        trust_coefficient: float | None = None,
        exclude: str | Iterable[str] | None = None,
        noise_rate: str = "global",
        epsilon: float | None = None,
        clip: bool | None = None,
        classic_momentum: bool | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(learning_rate, momentum, weight_decay, **kwargs)
        self.variant = _check.choice("variant", variant, trust.VARIANTS)
        own = trust.VARIANTS[variant]
        if trust_coefficient is None:
            trust_coefficient = own.trust_coefficient
        if epsilon is None:
            epsilon = own.epsilon
        if clip is None:
            clip = own.clip
        if classic_momentum is None:
            classic_momentum = own.classic_momentum
        self.trust_coefficient = _check.real(
            "trust_coefficient", trust_coefficient, above=0
        )
        if exclude is None:
            exclude = own.exclude
        self.exclude = exclusion.patterns(exclude)
        self.noise_rate = _check.choice("noise_rate", noise_rate, _NOISE_RATES)
        self.epsilon = _check.real("epsilon", epsilon, minimum=0)
        self.clip = _check.boolean("clip", clip)
        self.classic_momentum = _check.boolean(
            "classic_momentum", classic_momentum
        )
        self._refuse_unused_arguments(own)

    def _refuse_unused_arguments(self, own: trust.Variant) -> None:
        """Refuses arguments that mean nothing with the variant."""
        if self.clip and not own.clip:
            raise ValueError(
                "`clip` must be False or None but for LARC, got clip=True "
                f"with variant={self.variant!r}. Use variant='larc'."
            )
        chosen = self.classic_momentum != own.classic_momentum
        if chosen and self.variant != "tf_models":
            raise ValueError(
                "`classic_momentum` can be chosen for TensorFlow's LARS only, "
                f"got classic_momentum={self.classic_momentum} with "
                f"variant={self.variant!r}. Leave it out, or use "
                "variant='tf_models'."
            )

    def exclude_from_weight_decay(
        self, var_list: Any = None, var_names: Any = None
    ) -> None:
        """Raises an error: what is excluded this way would not be saved.

        Raises:
            ValueError: Always.
        """
        raise ValueError(
            "LARS leaves variables out by `exclude`, which is saved with it, "
            f"got exclude_from_weight_decay(var_list={var_list!r}, "
            f"var_names={var_names!r}). Pass LARS(exclude=[...])."
        )

    def build(self, variables: Sequence[keras.Variable]) -> None:
        """Creates the velocities and, for `noise_rate="layer"`, the rates."""
        if self.built:
            return
        super().build(variables)
        # TensorFlow's own have a name alone.
        paths = [getattr(v, "path", v.name) for v in variables]
        self._is_excluded = tuple(
            exclusion.is_excluded(path, self.exclude) for path in paths
        )
        own = trust.VARIANTS[self.variant].exclude
        if self.exclude not in ((), own) and not any(self._is_excluded):
            raise ValueError(
                "`exclude` must be found in the path of one variable at "
                f"least, got exclude={list(self.exclude)} with the variables "
                f"{', '.join(paths)}. Use () to exclude nothing."
            )
        self.local_rates = []
        if self.noise_rate == "layer":
            self.local_rates = [
                self.add_variable(
                    shape=(),
                    initializer=keras.initializers.Constant(_NOT_YET),
                    dtype=_at_least_float32(variable),
                    name=f"{path.replace('/', '_')}_local_rate",
                )
                for variable, path in zip(variables, paths, strict=True)
            ]

    def update_step(
        self,
        gradient: tf.Tensor | tf.IndexedSlices,
        variable: tf.Variable | keras.Variable,
        learning_rate: tf.Tensor,
    ) -> None:
        """Updates one variable as the variant does; see `MomentumSGD`'s."""
        index = _keras_compat.variable_index(self, variable)
        # Squares of a float16 overflow at 256.
        dtype = _at_least_float32(variable)
        x = tf.cast(variable, dtype)
        gradient = tf.cast(tf.convert_to_tensor(gradient), dtype)
        gamma = tf.cast(learning_rate, dtype)
        velocity = tf.zeros_like(x)
        if self.momentum:
            velocity = tf.cast(self.velocities[index].value, dtype)
        form = trust.VARIANTS[self.variant].form
        if self._is_excluded[index]:
            form = trust.plain
        settings = trust.Settings(
            momentum=self.momentum,
            weight_decay=self.l2_weight_decay,
            trust_coefficient=self.trust_coefficient,
            epsilon=self.epsilon,
            clip=self.clip,
            classic_momentum=self.classic_momentum,
        )
        x, velocity, ratio = form(x, gradient, velocity, gamma, settings)
        self.assign(variable, x)
        if self.momentum:
            self.assign(self.velocities[index], velocity)
        if self.local_rates:
            self.assign(self.local_rates[index], gamma * ratio)

    def update_vectors(self) -> tuple[list[keras.Variable], int]:
        """Returns the velocities; and -1 for forms that subtract them."""
        return self.velocities, 1 if self.classic_momentum else -1

    def noise_rates(
        self, variables: Iterable[keras.Variable]
    ) -> list[tf.Tensor] | None:
        """Returns the eta by which each variable's noise is scaled.

        Paper: Haruki et al. (2019), arXiv:1906.10822, Eqs. (3), (5) and (6)
        have one eta for noise and update. Under LARS the local rate of a step
        depends on the gradient for which the noise is needed, so it can be
        the global rate, or the local rate of the step before.

        Args:
            variables: Trainable variables that the optimizer was built with.

        Returns:
            One scalar per variable, or None with `noise_rate="global"`: the
            learning rate, for all.
        """
        if self.noise_rate == "global":
            return None
        rates = []
        for variable in variables:
            index = _keras_compat.variable_index(self, variable)
            local = tf.convert_to_tensor(self.local_rates[index].value)
            gamma = tf.cast(self.learning_rate, local.dtype)
            rates.append(tf.where(local < 0, gamma, local))
        return rates

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that make an equal optimizer."""
        return {
            **super().get_config(),
            "variant": self.variant,
            "trust_coefficient": self.trust_coefficient,
            "exclude": list(self.exclude),
            "noise_rate": self.noise_rate,
            "epsilon": self.epsilon,
            "clip": self.clip,
            "classic_momentum": self.classic_momentum,
        }


def _at_least_float32(variable: tf.Variable | keras.Variable) -> str:
    """Returns the dtype in which a variable is updated."""
    dtype = keras.backend.standardize_dtype(variable.dtype)
    return "float64" if dtype == "float64" else "float32"
