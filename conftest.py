"""Makes the plugin known where the package is used from a checkout, without an entry point."""

pytest_plugins = ["vlmbench.plugin", "pytester"]
