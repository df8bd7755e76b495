"""Searches for a method's settings on short runs.

`search` says what to try and `explore` in which order; `trials` has what has
come of it, and `report` shows that and the choice.
"""
