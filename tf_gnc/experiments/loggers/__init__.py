"""Where a run's numbers go beside its directory: a file for each library.

logger       what a library has to do
registry     their names, and what each needs
tensorboard, mlflow, wandb
record       a run in one of them: what was sent, and what is still to be sent
run_log      the callback that has the numbers

Each library has a callback for Keras. None of the three does the job here: all
log the batches that a run passes over when it is taken up within an epoch;
Keras's and W&B's then count steps from 0 again; MLflow's has either steps or
epochs, and all evaluations at step 0. What can't be sent is lost to them.
"""
