"""safetensors files whose bytes depend on nothing but what they hold."""

import json
import os
from pathlib import Path


def make_canonical(path: Path) -> None:
    """Rewrite a safetensors file with its header sorted; the tensors stay where they are.

    The library writes a header's metadata in the order of a hash table that differs from process
    to process, so equal weights would not be equal files.

    Args:
        path: a file that the library has written.
    """
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    text = json.dumps(header, sort_keys=True, separators=(",", ":")).encode()
    # The format wants the tensors to start at a multiple of eight bytes.
    text += b" " * (-len(text) % 8)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + length :])
    os.replace(partial, path)
