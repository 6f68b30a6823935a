"""A server as a container of the official image, on the host's network and in the same folder."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from testcontainers.core.container import DockerContainer

_STOP_WITHIN_S = 30


class Container:
    """Running from its making on. Paths, ports and user are the host's, as for a child process."""

    def __init__(self, image: str, command: Sequence[str], folder: Path) -> None:
        self._testcontainer = (
            DockerContainer(image)
            .with_command(list(command[1:]))
            .with_volume_mapping(str(folder), str(folder), "rw")
            .with_kwargs(
                entrypoint=[command[0]],
                network_mode="host",
                user=f"{os.getuid()}:{os.getgid()}",
                working_dir=str(folder),
            )
        )
        self._testcontainer.start()
        self._container = self._testcontainer.get_wrapped_container()
        self._log = ""

    def alive(self) -> bool:
        if self._container is None:
            return False
        self._container.reload()
        return str(self._container.status) in {"created", "running", "paused"}

    def kill(self) -> None:
        if self.alive():
            self._container.kill("SIGKILL")
        self._remove()

    def pause(self) -> None:
        self._container.pause()

    def resume(self) -> None:
        self._container.unpause()

    def stop(self) -> None:
        if self.alive():
            if str(self._container.status) == "paused":
                self._container.unpause()
            self._container.stop(timeout=_STOP_WITHIN_S)
        self._remove()

    def log_tail(self) -> str:
        if self._container is None:
            return self._log
        return str(self._container.logs(tail=80).decode(errors="replace"))

    def _remove(self) -> None:
        if self._container is not None:
            self._log = self.log_tail()
            self._testcontainer.stop()
            self._container = None
