"""`tf-gnc launch`, for users of the repository and of Cloud TPU VMs."""

import sys

from tf_gnc.cli.main import main

sys.exit(main(["launch", *sys.argv[1:]]))
