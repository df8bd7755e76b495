"""Processes on this machine: started, watched, stopped. Imports no TensorFlow.

launcher   several processes that train together, restarted if need be
addresses  who they are and where they listen: TF_CONFIG
child      one process
group      processes that stop together when one fails
pool       processes side by side, each for itself
processes  what group and pool have in common
output     their lines, each with its process's name
"""
