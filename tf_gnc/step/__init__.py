"""The training step: Algorithm 1 inside Keras's `fit`.

A call of `fit`:

    trainer          `GNCTrainStep`'s methods that Keras knows: `compile`
                     checks rule and workers; `fit` begins and ends here
    fit_arguments    before Keras's own `fit`: batches, processes, backups
    filters          which elements of a weight form a filter
    plan             made once from the built model: what all steps share
    control          for callbacks and doctor: skip steps, leave updates out

One step, in the order in which `train_step` goes through it:

    train_step       the algorithm as one function; begin reading here
    workers          M workers on R replicas: who gets which rows, the loop
    gradient_memory  each worker's gradient of the step before: the noise
    model_state      what a worker's call changes: statistics, seeds, metrics
    reduction        the workers' sums, and their mean in one collective
    signals          faults and the wish to stop, in the same collective
    step_table       a few numbers of each worker, for `callbacks.Probe`

Nothing of this is public but `GNCModel` and `GNCTrainStep`, which
`tf_gnc` exports.
"""
