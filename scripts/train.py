"""`tf-gnc train`, for users of the repository and of Cloud TPU VMs."""
from tf_gnc.cli.main import main
raise SystemExit(main(["train", *__import__("sys").argv[1:]]))
