"""Who signs, whose signatures count, and who may say what: from the settings, else the folder."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aquifer.settings import PREFIX, BadSettings
from streams.identity import Identity
from streams.keys import FileSigner, KeyRing

if TYPE_CHECKING:
    from aquifer.folder import Folder
    from aquifer.settings import Settings


def signer_of(settings: Settings, folder: Folder) -> FileSigner:
    """The cell's key. In a folder without one it is made, and known to the folder's ring.

    Raises OSError, ValueError, and BadSettings if the keys to believe are given without this one.
    """
    folder.root.mkdir(parents=True, exist_ok=True)
    signer = FileSigner(settings.signing_key or folder.signing_key)
    if settings.keys is not None:
        if signer.public not in KeyRing.load(settings.keys).publics:
            raise BadSettings(f"{PREFIX}KEYS: the signing key's public half is not among them")
    else:
        ring = KeyRing.load(folder.ring) if folder.ring.exists() else KeyRing(())
        if signer.public not in ring.publics:
            ring.adding(signer.public).save(folder.ring)
    return signer


def speaker_of(settings: Settings, folder: Folder) -> FileSigner | None:
    """Where commands are signed, the cell's own processes speak with its key. Raises as above."""
    return None if settings.actors is None else signer_of(settings, folder)


def verifier_of(settings: Settings, folder: Folder) -> KeyRing:
    """Raises OSError, ValueError."""
    return KeyRing.load(settings.keys or folder.ring)


def identity_of(settings: Settings) -> Identity:
    """Without a table of actors nothing has to be signed. Raises OSError, ValueError."""
    return Identity() if settings.actors is None else Identity.load(settings.actors)
