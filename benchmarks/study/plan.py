"""Which runs a study has, in the order in which they are done, and how long they take."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from study.families import OWN, Family
from study.identities import pairs, study_subjects
from study.methods.registry import Method
from study.runs import Key
from study.settings import Settings
from study.training import Job


@dataclass(frozen=True)
class Plan:
    """The runs of some methods.

    factors: by family, what its learning rates are multiplied by; 1 where it says nothing.
    depth: whether a few identities are trained in every band too.
    """

    settings: Settings
    methods: Sequence[Method]
    factors: Mapping[str, float]
    depth: bool = True

    def runs(self) -> Iterator[Key]:
        """Every run once: for each K each concept alone, then all fused; the depth of bands last."""
        seen: set[Key] = set()
        for count in self.settings.counts:
            for seed, method in self.sets(count):
                for key in (*self.alone(method, seed, count), self.fused(method, seed, count)):
                    if key not in seen:
                        seen.add(key)
                        yield key
        yield from (key for key in self.depths() if key not in seen)

    def seeds(self, method: Method, count: int) -> range:
        """The sets of identities that a method is measured on at K = `count`."""
        if method.kind == "trial":
            return range(1 if count == self.settings.few else 0)
        return self.settings.seeds_for(count, compared=method.kind == "method")

    def sets(self, count: int) -> Iterator[tuple[int, Method]]:
        """Every set with every method that is measured on it, set by set."""
        last = max((len(self.seeds(method, count)) for method in self.methods), default=0)
        for seed in range(last):
            yield from ((seed, method) for method in self.methods if seed in self.seeds(method, count))

    def alone(self, method: Method, seed: int, count: int) -> list[Key]:
        """The runs of the method's concepts alone; none where one adapter holds them all."""
        if method.family.joint:
            return []
        family = method.family.name
        return [Key("alone", family, seed, place, place, self.factor(method.family)) for place in range(count)]

    def fused(self, method: Method, seed: int, count: int) -> Key:
        """The run of the first `count` concepts of a set, fused."""
        return Key("fused", method.name, seed, count, factor=self.factor(method.family))

    def depths(self) -> list[Key]:
        """The same identities in every band."""
        if not self.depth:
            return []
        subjects, bands = range(self.settings.depth_subjects), range(self.settings.slots)
        return [Key("alone", OWN.name, 0, band, subject, self.factor(OWN)) for band in bands for subject in subjects]

    def factor(self, family: Family) -> float:
        """Of the learning rates that were chosen for this kind of adapter."""
        return self.factors.get(family.tuned_as, 1.0)

    def jobs(self, key: Key, family: Family) -> list[Job]:
        """The trainings that a run needs."""
        subjects = tuple(study_subjects(key.seed, self.settings.slots))
        if key.kind == "alone":
            return [Job(family, (subjects[key.subject],), key.place, key.seed, key.factor)]
        if family.joint:
            return [Job(family, subjects[: key.place], 0, key.seed, key.factor)]
        return [Job(family, (subjects[i],), i, key.seed, key.factor) for i in range(key.place)]

    def pictures(self, key: Key) -> int:
        """How many pictures a run draws."""
        each = len(self.settings.prompts) * self.settings.pictures
        if key.kind == "alone":
            return each
        return each * (key.place + 2 * len(pairs(key.place, self.settings.pairs)))

    def family(self, key: Key) -> Family:
        """What a run needs trained."""
        for method in self.methods:
            if key.name == (method.family.name if key.kind == "alone" else method.name):
                return method.family
        return OWN  # of the depths, where no method of the plan is of it


@dataclass(frozen=True)
class Costs:
    """Seconds of one optimizer step of one concept, of one picture, and of the solving in a fusion with data."""

    step: float
    picture: float
    solve: float

    def of(self, plan: Plan, key: Key, missing: Sequence[Job]) -> float:
        """Seconds of a run and of the trainings that it has to wait for."""
        settings = plan.settings
        trained = settings.steps * sum(len(job.subjects) for job in missing)
        seconds = self.step * trained + self.picture * plan.pictures(key)
        if key.kind == "fused" and any(m.name == key.name and m.data for m in plan.methods):
            share = settings.fusion_inference_steps / settings.num_inference_steps
            seconds += self.solve + self.picture * share * settings.fusion_pictures * key.place
        return seconds


def estimate(
    plan: Plan, costs: Costs, is_trained: Callable[[Job], bool], is_done: Callable[[Key], bool]
) -> dict[Key, float]:
    """Seconds of each run that is not done, in order; a training is counted where it is first needed."""
    begun: set[Job] = set()
    seconds = {}
    for key in plan.runs():
        if is_done(key):
            continue
        jobs = plan.jobs(key, plan.family(key))
        seconds[key] = costs.of(plan, key, [job for job in jobs if job not in begun and not is_trained(job)])
        begun.update(jobs)
    return seconds
