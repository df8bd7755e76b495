"""`tf-gnc train`, for users of the repository and of Cloud TPU VMs."""

import sys

from tf_gnc.cli.main import main

sys.exit(main(["train", *sys.argv[1:]]))
