"""Many runs at a time, for the subcommands that need them."""
