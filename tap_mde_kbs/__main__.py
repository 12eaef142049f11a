"""`python -m tap_mde_kbs` is the command `tap-mde-kbs`."""

from tap_mde_kbs.cli import main

if __name__ == "__main__":
    main()
