"""Which versions are at work."""

from importlib import metadata


def version_of(package: str) -> str:
    """The installed version of a package, or "not installed" (as in a checkout that is only on the path)."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"
