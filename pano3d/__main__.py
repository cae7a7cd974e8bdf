"""`python -m pano3d`, the same command as `pano3d`."""

from pano3d.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
