"""`tf-gnc launch`, for users of the repository and of Cloud TPU VMs."""

import sys

# Under this name tf_gnc imports no TensorFlow, which the launcher never needs.
sys.argv[0] = "tf-gnc"

from tf_gnc.cli.main import main  # noqa: E402

sys.exit(main(["launch", *sys.argv[1:]]))
