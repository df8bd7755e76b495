"""Where a run's numbers go beside its directory: a file for each library.

logger       what a library has to do
registry     their names, and what each needs
tensorboard, mlflow, wandb
record       a run in one of them: what was sent, and what is still to be sent
run_log      the callback that has the numbers

Each library has a callback for Keras. None of the three does the job here: on a
run that is taken up, each begins to count the steps anew (Keras's `TensorBoard`
in `on_train_begin`, W&B's from 0, MLflow's logs the batches that are passed
over), MLflow's logs either steps or epochs, and W&B's replaces
`tf.keras.Model.fit` when it is imported.
"""
