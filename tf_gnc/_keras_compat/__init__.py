"""The only folder that touches private names of Keras or TensorFlow.

Every entry says what it does, why the public way does not do and for which
versions it was tried; tests/test_keras_compat.py fails for an entry that is
no longer needed or no longer works.

Tried with TensorFlow 2.18 to 2.21 and Keras 3.12 to 3.15.
"""

from tf_gnc._keras_compat.data import (
    PreparedData,
    set_initial_epoch,
    training_data,
)
from tf_gnc._keras_compat.optimizers import (
    apply_if,
    gradients_already_averaged,
    parts_of,
    update_vectors,
    uses_weight_decay,
    variable_index,
)
from tf_gnc._keras_compat.processes import (
    SeveralProcesses,
    in_several_processes,
    on_this_replica,
)
from tf_gnc._keras_compat.saving import saved_as_functional
from tf_gnc._keras_compat.step import (
    build,
    call_for_training,
    compute_loss,
    global_seed_generator,
    is_built,
    is_seed_state,
    layers_of,
    mask_of,
    set_mask,
    set_random_seed,
    update_loss_tracker,
)
