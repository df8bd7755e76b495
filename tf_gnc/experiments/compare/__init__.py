"""Comparisons of methods: `plan`, then its runs, then their numbers.

`plan` has what to run and the directory of it, `statistics` the numbers,
`table` and `page` show them.
"""
