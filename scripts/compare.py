"""`tf-gnc compare`, for users of the repository and of Cloud TPU VMs."""

import sys

from tf_gnc.cli.main import main

sys.exit(main(["compare", *sys.argv[1:]]))
