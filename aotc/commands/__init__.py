"""The subcommands of the command line, one module each: arguments in, exit status out."""
