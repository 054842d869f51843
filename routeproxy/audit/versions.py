"""The versions of the rules that a trail rests on: each with its sources, in a file that its hash is in
the name of."""

import hashlib
from pathlib import Path

import msgspec

from routeproxy.files import read_file, write_whole
from routeproxy.policy.live.versions import Bundle, NoSuchVersion


class KeptVersions:
    def __init__(self, folder: Path) -> None:
        """`folder`: that of the trail."""
        self.folder = folder / "versions"

    def keep(self, bundle: Bundle) -> str:
        """The SHA-256 of its file. Raises `OSError`."""
        content = msgspec.json.encode(bundle, order="deterministic")
        digest = hashlib.sha256(content).hexdigest()
        path = self.folder / f"{bundle.version}-{digest[:16]}.json"
        if not path.exists():
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_whole(path, content)
        return digest

    def path_of(self, version: str, sha256: str | None) -> Path:
        """Raises `NoSuchVersion` where it is not kept."""
        pattern = f"{version}-{sha256[:16] if sha256 else '*'}.json"
        found = sorted(self.folder.glob(pattern)) if version.isalnum() else []
        if not found:
            raise NoSuchVersion(f"version {version} of the rules is not kept in {self.folder}")
        return found[0]

    def bundle(self, version: str, sha256: str | None = None) -> Bundle:
        """Raises `NoSuchVersion` where it is not kept, or is another by now."""
        path = self.path_of(version, sha256)
        try:
            content = read_file(path)
            bundle = msgspec.json.decode(content, type=Bundle)
        except (OSError, ValueError):
            raise NoSuchVersion(f"{path} can't be read") from None
        digest = hashlib.sha256(content).hexdigest()
        if not path.stem.endswith(digest[:16]) or (sha256 is not None and digest != sha256):
            raise NoSuchVersion(f"{path} is not what it was: its hash is another")
        return bundle
