"""The house rules of CONTRIBUTING.md, as far as a machine can check them."""
