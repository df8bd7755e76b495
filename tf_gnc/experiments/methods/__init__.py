"""The methods: what noise there is, when, and what can be set about it.

A method is whatever makes a noise rule: the rule's class, or a function that
combines several. Its arguments are its settings and its docstring is their
help, so that a new method is a file in `tf_gnc.noise` and a line in
`registry.METHODS`. A function of the user's, "module:function", is a method
without either.
"""
