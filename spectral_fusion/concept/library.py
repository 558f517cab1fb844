"""The library: a folder of concepts, one folder each, that several processes may use at once."""

from __future__ import annotations

import builtins
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

from spectral_fusion.atomic import remove_leftovers
from spectral_fusion.concept.check import Finding, look_through
from spectral_fusion.concept.claim import Claim, free_band
from spectral_fusion.concept.holdings import CLAIM, Holdings, find_folder, mend_library, read_entry
from spectral_fusion.concept.index import indexed_stock
from spectral_fusion.concept.locks import held, is_training
from spectral_fusion.concept.metadata import ConceptInfo
from spectral_fusion.concept.notes import NOTES, Notes, read_notes
from spectral_fusion.concept.read import FILE_NAME, read_info, rewrite
from spectral_fusion.concept.trash import Removed, bring_back, find_removed, new_entry, put_copy, removed
from spectral_fusion.errors import InputError, shown
from spectral_fusion.names import check_name, check_trigger
from spectral_fusion.spectral import Band, Side

if TYPE_CHECKING:
    from spectral_fusion.concept.file import Concept

logger = logging.getLogger(__name__)

VARIABLE = "SPECTRAL_FUSION_LIBRARY"
LOCK = ".lock"
LOCK_SECONDS = 30.0


class Library:
    """Concepts by name: `<root>/<name>/concept.safetensors`, beside whatever else belongs to the concept.

    Reading takes no lock: files are replaced whole. Changing takes a lock, so two processes cannot give out one band,
    name or trigger twice.
    """

    def __init__(self, root: str | Path | None = None):
        """root: None means `$SPECTRAL_FUSION_LIBRARY`, else `./concepts`. It need not exist."""
        self.root = Path(root or os.environ.get(VARIABLE) or "concepts")

    def folder(self, name: str) -> Path:
        """The folder of a concept, there or not; names that differ in case alone have one."""
        name = check_name(name)
        return find_folder(self.root, name) or self.root / name

    def path(self, name: str) -> Path:
        """The file of a concept, there or not."""
        return self.folder(name) / FILE_NAME

    def list(self) -> list[ConceptInfo]:
        """What the library holds, by name, tensors unread. A file that cannot be read is logged and left out."""
        stock = self.stock()
        for bad in stock.unreadable:
            logger.warning("left out of the library: %s", bad.reason)
        return [*stock.concepts]

    def stock(self) -> Holdings:
        """All that the library holds: concepts, trainings, and what cannot be read, with the reason.

        What killed processes left half-written is finished or undone first. Raises InputError where it is no folder.
        """
        if self.root.exists() and not self.root.is_dir():
            raise InputError(f"the library {self.root} is no folder; give the one that concepts lie in")
        mend_library(self.root)
        return indexed_stock(self.root)

    def info(self, name: str) -> ConceptInfo:
        """One concept's metadata; raises InputError with the nearest name where there is none."""
        return read_entry(self.find(name).parent)

    def get(self, name: str) -> Concept:
        """One concept; raises InputError with the nearest name where there is none."""
        from spectral_fusion.concept.file import Concept

        path = self.find(name)
        concept = Concept.load(path)
        return concept if concept.name == path.parent.name else replace(concept, name=path.parent.name)

    def find(self, name: str) -> Path:
        """One concept's file; raises InputError with the nearest name where there is none."""
        return self._require(check_name(name))

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
        from spectral_fusion.concept.file import Concept

        loaded = concept if isinstance(concept, Concept) else Concept.load(concept)
        info = replace(loaded.info, name=name or loaded.name, trigger=trigger or loaded.trigger)
        with self._locked():
            path = self.path(info.name)
            info = replace(info, name=path.parent.name)
            indexed_stock(self.root).refuse_trigger(info.trigger, but=info.name)
            if path.exists():
                if not force:
                    raise InputError(
                        f"the library has a concept {info.name!r} already; give another --name, or --force"
                    )
                put_copy(self.root, path, info.name)
            if isinstance(concept, Concept):
                replace(concept, name=info.name, trigger=info.trigger).save(path)
            else:
                rewrite(concept, path, info)
            (path.parent / CLAIM).unlink(missing_ok=True)
        return info

    def remove(self, name: str) -> Path:
        """Move a concept's folder to the trash, all its pictures and settings with it; `restore` is the inverse.

        Also a folder of the library whose name or file cannot be used.

        Returns:
            Where it lies now.

        Raises:
            InputError: there is none, or it is being trained.
        """
        with self._locked():
            folder = self._require(name, CLAIM).parent
            self._refuse_training(folder.name)
            target = new_entry(self.root, folder.name)
            folder.rename(target)
            return target

    def restore(self, name: str, *, at: str | None = None, force: bool = False) -> ConceptInfo:
        """Bring back what was removed, or replaced, last under this name.

        Args:
            at: the time at which it went to the trash, as `trash` gives it. None: the last one that is a concept.
            force: where the library has a concept of that name, put that one into the trash.

        Raises:
            InputError: nothing of that name is in the trash; its name, trigger or band has been taken since; or a
                concept of that name is being trained.
        """
        with self._locked():
            entry = find_removed(self.root, check_name(name), at)
            folder = self.folder(name)
            if folder.exists() and not force:
                raise InputError(
                    f"the library has a concept {folder.name!r} again; remove that one first, or put it into the trash "
                    "by --force"
                )
            self._refuse_training(folder.name)
            info = replace(read_info(entry.path / FILE_NAME), name=folder.name)
            indexed_stock(self.root).refuse_trigger(info.trigger, but=folder.name)
            self._refuse_owners(info, entry.path / FILE_NAME)
            bring_back(self.root, entry, folder)
            return info

    def removed(self) -> tuple[str, ...]:
        """Names that `restore` can bring back, the one removed last first."""
        names = dict.fromkeys(entry.name for entry in self.trash() if entry.has_concept)
        return tuple(name for name in names if not self.folder(name).exists())

    def trash(self) -> builtins.list[Removed]:
        """Everything that was removed or replaced, the last first."""
        return removed(self.root)

    def rename(self, name: str, to: str) -> ConceptInfo:
        """Give a concept another name, or another trigger where `to` is in angle brackets; its tensors stay the same.

        Raises:
            InputError: no such concept, `to` is malformed or another's, or the concept is being trained.
        """
        if str(to).startswith("<"):
            return self.set_trigger(name, to)
        try:
            to = check_name(to)
        except InputError as error:
            raise InputError(f"{error}; a trigger stands in angle brackets: <rex>") from None
        with self._locked():
            folder = self.find(name).parent
            self._refuse_training(folder.name)
            if (folder / CLAIM).exists():
                raise InputError(f"{folder.name!r} has a training to resume; end that one, or remove it, first")
            taken = self.folder(to)
            if taken.exists() and taken != folder:
                raise InputError(f"the library has a concept {taken.name!r} already; give another name")
            target = self.root / to
            folder.rename(target)
            info = read_entry(target)
            rewrite(target / FILE_NAME, target / FILE_NAME, info)
            return info

    def set_trigger(self, name: str, trigger: str) -> ConceptInfo:
        """Give a concept another trigger; its tensors stay as they are.

        Raises:
            InputError: no such concept, the trigger is malformed, or another concept has it.
        """
        trigger = check_trigger(trigger)
        with self._locked():
            path = self.find(name)
            indexed_stock(self.root).refuse_trigger(trigger, but=path.parent.name)
            info = replace(read_entry(path.parent), trigger=trigger)
            rewrite(path, path, info)
            return info

    def notes(self, name: str) -> Notes:
        """What was noted about a concept. Raises InputError where there is none of that name."""
        return read_notes(self.find(name).with_name(NOTES))

    def note(self, name: str, notes: Notes) -> None:
        """Keep these notes beside a concept. Raises InputError where there is none of that name."""
        notes.save(self.find(name).with_name(NOTES))

    def check(self) -> builtins.list[Finding]:
        """Look through the library: mend what killed processes left, and say what else is wrong."""
        with self._locked():
            return look_through(self.root)

    def sharing(self, info: ConceptInfo) -> builtins.list[str]:
        """Names of the other concepts and trainings whose band meets that of a concept on its base."""
        return [name for name in self.stock().sharing(info) if name != info.name]

    def next_free_band(self, base: str, rank: int, *, side: Side = "top", directions: int | None = None) -> Band:
        """The outermost band of this rank and side that no concept or claim of the library touches on this base.

        Args:
            base: fingerprint of the base.
            directions: singular directions of the smallest layer that will be adapted. None: as the library's concepts
                of this base say; without any, no end is known.

        Raises:
            InputError: all bands are taken; says how many fit and what to do.
        """
        stock = self.stock().require_claims()
        taken = [band for _, band in stock.bands(base)]
        return free_band(taken, rank, directions or stock.directions(base), side)

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
        name, trigger = check_name(name), check_trigger(trigger)
        with self._locked():
            folder = self.folder(name)
            stock = self.stock().require_claims()
            stock.refuse_trigger(trigger, but=folder.name)
            directions = directions or stock.directions(base)
            old = dict(stock.claims).get(folder.name)
            same = old and (old.base, old.band.rank, old.band.side) == (base, rank, side)
            if old and same and band in (None, old.band.index):
                chosen = old.band
            elif band is None:
                taken = [used for other, used in stock.bands(base) if other != folder.name]
                chosen = free_band(taken, rank, directions, side)
            else:
                chosen = Band(band, rank, side)
                stock.refuse_band(chosen, base, directions, but=folder.name)
            remove_leftovers(folder)
            Claim(trigger, base, chosen).save(folder / CLAIM)
        return chosen

    def release(self, name: str) -> None:
        """Give a claim back. Nothing happens where there is none; an emptied folder goes too."""
        with self._locked():
            folder = self.folder(name)
            (folder / CLAIM).unlink(missing_ok=True)
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()

    def _refuse_owners(self, info: ConceptInfo, file: Path) -> None:
        """Raises InputError where another concept or training was given the band of one that is to come back."""
        if owners := self.sharing(info):
            raise InputError(
                f"the band of {info.name!r} was given to {owners[0]!r} since it was removed, and two that share a band "
                f"cannot be fused; remove {owners[0]!r} first, or add {file} to have both"
            )

    def _refuse_training(self, name: str) -> None:
        if is_training(self.root, name):
            raise InputError(f"{name!r} is being trained; stop that training first")

    def _require(self, name: str, *alternatives: str) -> Path:
        folder = find_folder(self.root, name)
        for file in (FILE_NAME, *alternatives):
            if folder is not None and (path := folder / file).is_file():
                return path
        names = [info.name for info in self.list()]
        near = get_close_matches(name, names, n=1)
        advice = f"did you mean {near[0]!r}?" if near else f"it has: {', '.join(names) or 'none yet, train one'}"
        raise InputError(f"no concept {shown(name)} in the library {self.root}; {advice}")

    @contextmanager
    def _locked(self) -> Iterator[None]:
        busy = f"the library {self.root} is in use by another process; try again"
        with held(self.root / LOCK, seconds=LOCK_SECONDS, busy=busy):
            yield
