"""How to call Java: of this machine with the pinned jars, or of an official image."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from infra.maven import SetupError, jars
from infra.server import chosen_way

_NEEDED = 17  # Cassandra 5.0 runs on 11 and 17, Kafka 4 on 17 and later


def java_command(jar_list: str, image_lib: str, arguments: Sequence[str]) -> list[str]:
    """`java` with the jars of infra/jars/JAR_LIST, or of the folder `image_lib` in the image."""
    if chosen_way() == "docker":
        return ["java", "-cp", f"{image_lib}/*", *arguments]
    return [find_java(), "-cp", f"{jars(jar_list)}/*", *arguments]


def jar_path(jar_list: str, image_lib: str, jar: str) -> str:
    """Where one jar is, by the same choice."""
    folder = image_lib if chosen_way() == "docker" else str(jars(jar_list))
    return f"{folder}/{jar}"


@cache
def find_java() -> str:
    """A JDK 17's `java`: of $JAVA_HOME, of the path, or of /usr/lib/jvm. Raises SetupError."""
    home = os.environ.get("JAVA_HOME")
    candidates = [f"{home}/bin/java"] if home else []
    candidates += [found for found in [shutil.which("java")] if found]
    candidates += [str(path) for path in sorted(Path("/usr/lib/jvm").glob("*17*/bin/java"))]
    for candidate in candidates:
        if _major_version(candidate) == _NEEDED:
            return candidate
    raise SetupError(
        f"no JDK {_NEEDED} found (looked at {candidates or 'JAVA_HOME and PATH'}): "
        f"install JDK {_NEEDED} and Maven, or start a Docker engine"
    )


def _major_version(java: str) -> int | None:
    try:
        said = subprocess.run([java, "-version"], capture_output=True, text=True, timeout=60).stderr
    except OSError:
        return None
    match = re.search(r'version "(\d+)', said)
    return int(match.group(1)) if match else None
