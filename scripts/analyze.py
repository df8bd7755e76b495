"""`tf-gnc analyze`, for users of the repository and of Cloud TPU VMs."""

import sys

from tf_gnc.cli.main import main

sys.exit(main(["analyze", *sys.argv[1:]]))
