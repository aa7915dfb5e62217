"""The C{twistd} commands: options, configuration file, systemd, HTTP pages, health."""
