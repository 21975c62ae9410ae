"""The demo's shop. To run it by hand, make this directory the current one; see `config`."""
