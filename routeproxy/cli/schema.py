"""`routeproxy schema`: what may stand in a rules file, for editors that complete and check it."""

from typing import TextIO

import msgspec

from routeproxy.policy.compile.schema import schema


def run_schema(*, layer: bool = False, out: TextIO) -> int:
    """Prints the JSON Schema of a rules file, or of an included file. Always 0."""
    print(msgspec.json.format(msgspec.json.encode(schema(layer=layer))).decode(), file=out)
    return 0
