"""The library: a folder of concepts, one folder each, that several processes may use at once."""

import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timezone
from difflib import get_close_matches
from pathlib import Path

from filelock import FileLock, Timeout

from spectral_fusion.atomic import atomic_folder, remove_leftovers
from spectral_fusion.concept.claim import Claim, free_band
from spectral_fusion.concept.file import Concept
from spectral_fusion.concept.metadata import ConceptInfo
from spectral_fusion.concept.read import FILE_NAME, read_info, rewrite
from spectral_fusion.errors import InputError
from spectral_fusion.names import check_name, check_trigger
from spectral_fusion.spectral import Band, Side

logger = logging.getLogger(__name__)

VARIABLE = "SPECTRAL_FUSION_LIBRARY"
TRASH = ".trash"
LOCK = ".lock"
LOCK_SECONDS = 30.0
CLAIM = "claim.json"


class Library:
    """Concepts by name: `<root>/<name>/concept.safetensors`, beside whatever else belongs to the concept.

    Reading takes no lock: files are replaced whole. Changing takes a lock, so two processes cannot give out one band,
    name or trigger twice.
    """

    def __init__(self, root: str | Path | None = None):
        """root: None means `$SPECTRAL_FUSION_LIBRARY`, else `./concepts`. It need not exist."""
        self.root = Path(root or os.environ.get(VARIABLE) or "concepts")

    def folder(self, name: str) -> Path:
        """The folder of a concept, there or not."""
        return self.root / check_name(name)

    def path(self, name: str) -> Path:
        """The file of a concept, there or not."""
        return self.folder(name) / FILE_NAME

    def list(self) -> list[ConceptInfo]:
        """What the library holds, by name, tensors unread. A file that cannot be read is logged and left out."""
        found = []
        for path in sorted(self.root.glob(f"[!.]*/{FILE_NAME}")):
            try:
                found.append(read_info(path))
            except InputError as error:
                logger.warning("left out of the library: %s", error)
        return found

    def info(self, name: str) -> ConceptInfo:
        """One concept's metadata; raises InputError with the nearest name where there is none."""
        return read_info(self.find(name))

    def get(self, name: str) -> Concept:
        """One concept; raises InputError with the nearest name where there is none."""
        return Concept.load(self.find(name))

    def find(self, name: str) -> Path:
        """One concept's file; raises InputError with the nearest name where there is none."""
        return self._require(name)

    def add(
        self, concept: Concept | str | Path, *, name: str | None = None, trigger: str | None = None, force: bool = False
    ) -> ConceptInfo:
        """Put a concept, or a copy of a concept file, into the library.

        Args:
            name, trigger: None keeps what the concept carries.
            force: replace a concept of that name; its file goes to the trash.

        Raises:
            InputError: the file is no concept, the name is taken (without `force`), or another concept has the trigger.
        """
        loaded = concept if isinstance(concept, Concept) else Concept.load(concept)
        info = replace(loaded.info, name=name or loaded.name, trigger=trigger or loaded.trigger)
        path = self.path(info.name)
        with self._locked():
            self._refuse_trigger(info.trigger, but=info.name)
            if path.exists():
                if not force:
                    raise InputError(
                        f"the library has a concept {info.name!r} already; give another --name, or --force"
                    )
                with atomic_folder(self._new_trash(info.name)) as trash:
                    shutil.copy2(path, trash)
            if isinstance(concept, Concept):
                replace(concept, name=info.name, trigger=info.trigger).save(path)
            else:
                rewrite(concept, path, info)
            (path.parent / CLAIM).unlink(missing_ok=True)
        return info

    def remove(self, name: str) -> Path:
        """Move a concept's folder to the trash, all its pictures and settings with it; `restore` is the inverse.

        Returns:
            Where it lies now.
        """
        with self._locked():
            folder = self._require(name, CLAIM).parent
            target = self._new_trash(name)
            folder.rename(target)
            return target

    def restore(self, name: str) -> ConceptInfo:
        """Bring back what was removed last under this name.

        Raises:
            InputError: nothing of that name is in the trash, or its name or trigger has been taken since.
        """
        with self._locked():
            removed = sorted((self.root / TRASH).glob(f"{check_name(name)}@*"))
            if not removed:
                raise InputError(f"no concept {name!r} in the trash of {self.root}; nothing to restore")
            if self.folder(name).exists():
                raise InputError(f"the library has a concept {name!r} again; remove that one first")
            info = read_info(removed[-1])
            self._refuse_trigger(info.trigger, but=name)
            removed[-1].rename(self.folder(name))
            return info

    def removed(self) -> tuple[str, ...]:
        """Names that `restore` can bring back, the one removed last first."""
        trash = sorted((self.root / TRASH).glob("*@*"), key=lambda path: path.name.rpartition("@")[2], reverse=True)
        names = dict.fromkeys(path.name.rpartition("@")[0] for path in trash)
        return tuple(name for name in names if not self.folder(name).exists())

    def rename(self, name: str, trigger: str) -> ConceptInfo:
        """Give a concept another trigger; its tensors stay as they are.

        Raises:
            InputError: no such concept, the trigger is malformed, or another concept has it.
        """
        check_trigger(trigger)
        with self._locked():
            self._refuse_trigger(trigger, but=name)
            info = replace(self.info(name), trigger=trigger)
            rewrite(self.path(name), self.path(name), info)
            return info

    def next_free_band(self, base: str, rank: int, *, side: Side = "top", directions: int | None = None) -> Band:
        """The outermost band of this rank and side that no concept or claim of the library touches on this base.

        Args:
            base: fingerprint of the base.
            directions: singular directions of the smallest layer that will be adapted. None: as the library's concepts
                of this base say; without any, no end is known.

        Raises:
            InputError: all bands are taken; says how many fit and what to do.
        """
        return free_band(list(self._bands(base).values()), rank, directions or self._directions(base), side)

    def claim(
        self,
        name: str,
        trigger: str,
        base: str,
        rank: int,
        *,
        band: int | None = None,
        side: Side = "top",
        directions: int | None = None,
    ) -> Band:
        """Take a band, name and trigger for a training that starts now; `add` fills it, `release` gives it back.

        A claim outlives its process, so that a killed training can resume: claiming again with the same name, base and
        rank returns the same band. Half-written files of the killed one are deleted.

        Args:
            band: None chooses the outermost free one of the side.

        Raises:
            InputError: as `next_free_band`, and where another concept or claim has the trigger or touches `band`.
        """
        check_trigger(trigger)
        with self._locked():
            self._refuse_trigger(trigger, but=name)
            old = self._claims().get(name)
            same = old and (old.base, old.band.rank, old.band.side) == (base, rank, side)
            if old and same and band in (None, old.band.index):
                chosen = old.band
            elif band is None:
                taken = [used for other, used in self._bands(base).items() if other != name]
                chosen = free_band(taken, rank, directions or self._directions(base), side)
            else:
                chosen = Band(band, rank, side)
                self._refuse_band(chosen, base, directions or self._directions(base), but=name)
            remove_leftovers(self.folder(name))
            Claim(trigger, base, chosen).save(self.folder(name) / CLAIM)
        return chosen

    def release(self, name: str) -> None:
        """Give a claim back. Nothing happens where there is none; an emptied folder goes too."""
        with self._locked():
            folder = self.folder(name)
            (folder / CLAIM).unlink(missing_ok=True)
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()

    def _claims(self) -> dict[str, Claim]:
        return {path.parent.name: Claim.load(path) for path in self.root.glob(f"[!.]*/{CLAIM}")}

    def _bands(self, base: str) -> dict[str, Band]:
        claimed = {name: claim.band for name, claim in self._claims().items() if claim.base == base}
        return claimed | {info.name: info.band for info in self.list() if info.base == base}

    def _directions(self, base: str) -> int | None:
        return min((info.directions for info in self.list() if info.base == base), default=None)

    def _refuse_band(self, band: Band, base: str, directions: int | None, *, but: str) -> None:
        for name, used in self._bands(base).items():
            if name != but and used.overlaps(band, directions):
                raise InputError(f"{band} overlaps that of {name!r} ({used}); choose another band, or auto")

    def _refuse_trigger(self, trigger: str, *, but: str) -> None:
        owners = {name: claim.trigger for name, claim in self._claims().items()}
        owners |= {info.name: info.trigger for info in self.list()}
        for name, owned in owners.items():
            if name != but and owned.lower() == trigger.lower():
                raise InputError(f"trigger {trigger} belongs to concept {name!r} of this library; choose another")

    def _require(self, name: str, *alternatives: str) -> Path:
        for file in (FILE_NAME, *alternatives):
            if (path := self.folder(name) / file).is_file():
                return path
        names = [info.name for info in self.list()]
        near = get_close_matches(name, names, n=1)
        advice = f"did you mean {near[0]!r}?" if near else f"it has: {', '.join(names) or 'none yet, train one'}"
        raise InputError(f"no concept {name!r} in the library {self.root}; {advice}")

    def _new_trash(self, name: str) -> Path:
        (self.root / TRASH).mkdir(parents=True, exist_ok=True)
        return self.root / TRASH / f"{name}@{datetime.now(timezone.utc):%Y%m%dT%H%M%S.%f}"

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self.root.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(self.root / LOCK, timeout=LOCK_SECONDS):
                yield
        except Timeout as error:
            raise InputError(f"the library {self.root} is in use by another process; try again") from error
