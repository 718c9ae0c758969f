"""Known vulnerabilities in what is installed from the lock files: `make check`."""
