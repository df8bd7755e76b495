"""Figures of what runs have recorded, and the page that shows them.

A new figure is a function that draws it and an entry in the registry.

    recorded_runs  runs as they lie on the disk, and a name for each
    registry       which figures there are: title, caption, what each needs
    paper          draws the paper's figures
    loss_shape     draws the loss around the weights: smoothness, landscape
    style          colours, axes, lines; the same for all
    page           the HTML page and its directory (`tf-gnc analyze`)
    curves         loss and accuracy of one run, drawn as it ends
"""
