"""One run, from its configuration to a directory with its results.

`building` makes what it is made of, `directory` and `placement` where it
writes, `runner` trains. `metrics`, `recording` and `environment` are what it
writes down, `measure` what is measured afterwards; `task` is a run as one of
many, which a comparison or a search starts and reads.
"""
