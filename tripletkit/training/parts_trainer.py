"""The trainers of `best`, whose parts are weighed by held-out answers, and of `auto`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

import numpy as np
from scipy.optimize import minimize
from threadpoolctl import threadpool_limits

from tripletkit import defaults
from tripletkit.evaluation.distances import triplet_margins
from tripletkit.evaluation.pooled import (
    CandidateWorth,
    PooledScore,
    RecipeWorth,
    compare_pooled,
    weigh_images_alike,
)
from tripletkit.evaluation.validation import describe_alike
from tripletkit.features.unit_length import scale_to_unit_length
from tripletkit.model.head_layers import TrainedPart, embed, fit_projection, join_parts
from tripletkit.model.recipes import (
    COSINE,
    FROZEN,
    MAP,
    MLP,
    RESIDUAL,
    SIMPLEST_FIRST,
    Part,
    get_recipe,
)
from tripletkit.model.settings import Settings
from tripletkit.progress import Progress, Stages, no_progress, no_stages
from tripletkit.training.part_training import (
    MLP_PART,
    N_DIRECTIONS,
    RESIDUAL_PART,
    MapSettings,
    PartFeatures,
    PartSettings,
    embed_part,
    train_map,
    train_part,
)
from tripletkit.training.trainer import (
    Chosen,
    EpochRecord,
    Examples,
    Fitted,
    HeldOutAnswers,
    OnEpoch,
    Trainer,
    check_collapse,
    credit,
    ignore_epoch,
)

logger = logging.getLogger("tripletkit")

_Weights = list[np.ndarray]

# Squared, because those of an ensemble's parts add up.
_PART_DISTANCE = "squared-l2"
# Parts below this share of the distances are left out.
_MIN_WEIGHT = 0.01
# Weights are held near each other as strongly as one image would: from so many images on, a round
# of draws that tells an accuracy also tells weights.
_MANY_IMAGES = 2_000
# Standard errors that a 95% interval reaches.
_REACH = 1.96
# Images whose embeddings tell whether those of all have become alike.
_MOST_LOOKED_AT = 5_000


@dataclass(frozen=True)
class _Candidate:
    """A part that may become one of the ensemble: a head on some columns of the features, with the
    variants of its training in its settings, if it is trained."""

    features: str
    columns: slice
    head: str
    settings: PartSettings | MapSettings | None = None

    @classmethod
    def of(cls, features: str, columns: slice, head: str) -> _Candidate:
        """Return a candidate with the settings of its head."""
        of_heads: dict[str, PartSettings | MapSettings] = {
            MAP: MapSettings(),
            RESIDUAL: RESIDUAL_PART,
            MLP: MLP_PART,
        }
        return cls(features, columns, head, of_heads.get(head))

    @property
    def name(self) -> str:
        return f"{self.features}, {self.head}"

    @property
    def is_standardised(self) -> bool:
        """Whether its features are, beside having length 1."""
        return self.head not in (COSINE, MAP)

    @property
    def n_tried(self) -> int:
        """How many variants of its training there are to choose from; 1 without training."""
        return 1 if self.settings is None else len(self.settings.variants)

    @property
    def n_heads(self) -> int:
        """How many are trained and averaged; there is one map, as nothing of it is chance."""
        return self.settings.n_heads if isinstance(self.settings, PartSettings) else 1

    def after(self, place: int | None = None) -> _Candidate:
        """Return the candidate with one variant: that at a place, or the usual one."""
        if self.settings is None:
            return self
        place = self.n_tried // 2 if place is None else place
        # Both kinds of settings have variants.
        settings: Any = self.settings
        one = replace(settings, variants=settings.variants[place : place + 1])
        return replace(self, settings=one)

    def train(
        self,
        features: PartFeatures,
        rows: np.ndarray,
        seed: Sequence[int],
        loss_weights: np.ndarray | None,
    ) -> Iterator[list[_Weights]]:
        """Yield the weights of each head, in each variant; none of a part that is not trained."""
        if self.settings is None:
            yield [[]]
        elif isinstance(self.settings, MapSettings):
            yield train_map(features, rows, self.settings, loss_weights)
        else:
            for number in range(self.n_heads):
                own = int(np.random.SeedSequence([*seed, number]).generate_state(1)[0])
                yield train_part(features, rows, self.settings, own, loss_weights)

    def part(self, features: PartFeatures, weight: float) -> Part:
        """Return one head as the record has it."""
        hidden, n_dims, n_steps = 0, features.scaled.shape[1], 0
        if isinstance(self.settings, MapSettings):
            hidden = features.directions.shape[1]
        elif self.settings is not None:
            hidden, n_dims = self.settings.hidden, self.settings.n_dims or n_dims
            (n_steps,) = self.settings.variants
        ends = self.columns.start, self.columns.stop
        return Part(self.features, *ends, self.head, hidden, n_dims, weight, n_steps)


@dataclass(frozen=True)
class _PartWeights:
    """Weights of parts' margins, of sum 1, each divided by its root mean square, the spread."""

    weights: np.ndarray
    spreads: np.ndarray

    @property
    def distance_weights(self) -> np.ndarray:
        """Return the weights of squared distances; their sum is 1."""
        of_distances = self.weights / self.spreads
        return of_distances / of_distances.sum()

    def margins(self, of_parts: np.ndarray) -> np.ndarray:
        """Return the margins of the ensemble from those of its parts, `(n_parts, n_triplets)`."""
        return self.distance_weights @ of_parts


class PartsTrainer(Trainer):
    """Trains parts, of which held-out answers choose the variants and the weights. Its variants are
    those of all candidates, until weights are chosen."""

    def __init__(
        self,
        examples: Examples,
        settings: Settings,
        candidates: Sequence[_Candidate] | None = None,
        weights: _PartWeights | None = None,
        accuracy: float = np.nan,
    ) -> None:
        super().__init__(examples, settings)
        if candidates is None:
            candidates = _list_candidates(examples, get_recipe(settings.recipe).part_heads)
        self.candidates = list(candidates)
        if len({candidate.head for candidate in self.candidates}) > 1:
            # To weigh heads takes more answers than to tell an accuracy; see `docs/benchmarks.md`.
            is_many = len(np.unique(examples.rows)) >= _MANY_IMAGES
            self.n_enough = defaults.POOLED_TRIPLETS if is_many else defaults.WEIGHED_TRIPLETS
        self.weights = weights
        self._accuracy = accuracy

    def answer(self, learned: np.ndarray, asked: np.ndarray, further: int = 0) -> np.ndarray:
        seed = self.settings.seed + further
        if self.weights is None:
            return self._answer_apart(learned, asked, range(len(self.candidates)), seed)
        # The others have no say.
        weighed = np.flatnonzero(self.weights.weights > 0).tolist()
        of_parts = np.zeros((len(self.candidates), len(asked)), np.float32)
        of_parts[weighed] = self._answer_apart(learned, asked, weighed, seed)
        return self.weights.margins(of_parts)[None]

    def choose(self, held_out: HeldOutAnswers | None) -> Chosen:
        if held_out is None:
            return Chosen(self._weighed_alike([each.after() for each in self.candidates]))
        owners = _list_owners(self.candidates)
        rows_of = _choose_steps(held_out.margins, owners, held_out.images)
        firsts = np.searchsorted(owners, np.arange(len(self.candidates)))
        candidates = [
            candidate.after(int(place))
            for candidate, place in zip(self.candidates, rows_of - firsts, strict=True)
        ]
        margins = held_out.margins[rows_of]
        weights = _choose_parts(margins, held_out.images)

        def choose(others: HeldOutAnswers) -> Callable[[np.ndarray], np.ndarray]:
            rows = _choose_steps(others.margins, owners, others.images)
            chosen = _choose_parts(others.margins[rows], others.images)
            return lambda of_asked: chosen.margins(of_asked[rows])

        answered = held_out.cross_fit(choose)
        accuracy = weigh_images_alike(held_out.images) @ credit(answered)
        return Chosen(
            PartsTrainer(self.examples, self.settings, candidates, weights, float(accuracy)),
            answered,
            candidates=tuple(_measure_worth(held_out, margins, candidates, weights)),
        )

    def fit(self, _on_epoch: OnEpoch = ignore_epoch, stages: Stages = no_stages) -> Fitted:
        return self._join(self.train_parts(stages("heads")))

    def for_curve(self) -> PartsTrainer:
        """Return the strongest part that is trained, alone."""
        assert self.weights is not None, "they are chosen"
        is_trained = [candidate.settings is not None for candidate in self.candidates]
        strongest = int(np.argmax(self.weights.weights * is_trained))
        return self._weighed_alike([self.candidates[strongest]])

    @threadpool_limits.wrap(1, user_api="blas")
    def train_parts(self, progress: Progress = no_progress) -> list[TrainedPart]:
        """Train what was chosen on all triplets; parts of hardly any weight are left out."""
        assert self.weights is not None, "they are chosen"
        rows, weights = self.examples.rows, self.weights.weights
        is_kept = weights >= min(_MIN_WEIGHT, weights.max())
        shares = self.weights.distance_weights * is_kept
        shares /= shares.sum()
        kept = np.flatnonzero(is_kept)
        total = sum(self.candidates[number].n_heads for number in kept)
        parts: list[TrainedPart] = []
        for number, of_block in self._views(slice(None), np.unique(rows), kept):
            candidate, seed = self.candidates[number], [self.settings.seed, number]
            part = candidate.part(of_block, float(shares[number]) / candidate.n_heads)
            for (trained,) in candidate.train(of_block, rows, seed, self.examples.loss_weights):
                parts.append(TrainedPart(part, trained, of_block.scaling))
                progress(len(parts), total)
        return parts

    def _views(
        self,
        images: np.ndarray | slice,
        trained: np.ndarray,
        numbers: Iterable[int],
        n_directions: int = N_DIRECTIONS,
    ) -> Iterator[tuple[int, PartFeatures]]:
        """Yield the numbers of candidates with their features of images, scaled by those that are
        trained; those of the same features in turn."""

        def view(number: int) -> tuple[int, int, bool]:
            candidate = self.candidates[number]
            return candidate.columns.start, candidate.columns.stop, not candidate.is_standardised

        for (start, stop, is_unit), alike in groupby(sorted(numbers, key=view), view):
            features = self.examples.features[images, start:stop]
            seen = PartFeatures.of(features, trained, n_directions, is_standardised=not is_unit)
            for number in alike:
                yield number, seen

    def _weighed_alike(self, candidates: Sequence[_Candidate]) -> PartsTrainer:
        """Return a trainer whose parts have the same say, by the spread of their features' own
        margins: those of features that are not standardised are many times smaller."""
        rows, spreads = self.examples.rows, np.ones(len(candidates))
        alike = PartsTrainer(self.examples, self.settings, candidates)
        for number, seen in alike._views(slice(None), np.unique(rows), range(len(candidates)), 1):
            embeddings = scale_to_unit_length(seen.scaled)
            spreads[number] = _measure_spreads(triplet_margins(embeddings, rows, _PART_DISTANCE))
        alike.weights = _PartWeights(np.full(len(candidates), 1 / len(candidates)), spreads)
        return alike

    # A step is too short for several threads: with two, 4,827 images took 1.5 times as long.
    @threadpool_limits.wrap(1, user_api="blas")
    def _answer_apart(
        self, learned: np.ndarray, asked: np.ndarray, numbers: Sequence[int], seed: int
    ) -> np.ndarray:
        """Return `(n_tried, n_asked)` float32 margins of candidates, the rows as `_list_owners`."""
        rows, loss_weights = self.examples.rows[learned], self.examples.weights_of(learned)
        images, places = np.unique(np.concatenate([rows, asked]), return_inverse=True)
        trained, questions = np.split(places.reshape(-1, 3), [len(rows)])
        needed, questions = np.unique(questions, return_inverse=True)
        questions = questions.reshape(-1, 3)
        margins: dict[int, np.ndarray] = {}
        for number, seen in self._views(images, np.unique(trained), numbers):
            candidate = self.candidates[number]
            features = seen.scaled[needed]
            of_heads = [
                [
                    triplet_margins(
                        embed_part(features, weights, candidate.head), questions, _PART_DISTANCE
                    )
                    for weights in variants
                ]
                for variants in candidate.train(seen, trained, [seed, number], loss_weights)
            ]
            margins[number] = np.mean(of_heads, axis=0)
        return np.concatenate([margins[number] for number in numbers])

    def _join(self, parts: Sequence[TrainedPart]) -> Fitted:
        """Return trained parts as a trained model, compressed if so asked."""
        settings, features = self.settings, self.examples.features
        head = join_parts(features.shape[1], parts)
        rows = self.examples.rows
        if len(np.unique(rows)) > _MOST_LOOKED_AT:
            # Parts stand side by side: the embeddings of all would be many times the features.
            few = _MOST_LOOKED_AT // 3
            rows = np.random.default_rng(settings.seed).permutation(rows)[:few]
        images, places = np.unique(rows, return_inverse=True)
        if settings.is_compressed:
            head = head.compressed(*fit_projection(embed(head, features[images]), settings))
        embeddings = embed(head, features[images])
        margins = triplet_margins(embeddings, places.reshape(-1, 3), _PART_DISTANCE)
        loss = float(np.maximum(settings.margin - margins, 0).mean())
        spread, rank = check_collapse(
            embeddings, loss, settings, find_cause=lambda: describe_alike(features, images)
        )
        active = float(np.mean(margins < settings.margin))
        record = EpochRecord(1, loss, active, self._accuracy, spread, rank)
        of_record = tuple(each.part for each in parts)
        return Fitted(head, [record], 1, settings, parts=of_record)


def _feature_blocks(columns: Mapping[str, slice]) -> dict[str, slice]:
    """Return the columns of each network's last features, and of its early ones together. The last
    layers tell classes apart, the early ones what people see."""
    blocks: dict[str, slice] = {}
    for name, taken in columns.items():
        network, _, stage = name.partition(":")
        name = f"{network} early" if stage else network
        # The stages of one network stand side by side.
        start = blocks[name].start if name in blocks else taken.start
        blocks[name] = slice(start, taken.stop)
    return blocks


def _list_candidates(examples: Examples, heads: Sequence[str]) -> list[_Candidate]:
    """Return every head on every block of features, and a short embedding of all blocks."""
    whole = slice(0, examples.features.shape[1])
    blocks = _feature_blocks(examples.columns or {"features": whole})
    candidates = [
        _Candidate.of(name, columns, head) for name, columns in blocks.items() for head in heads
    ]
    if MLP in heads and len(blocks) > 1:
        candidates.append(_Candidate.of("all features", whole, MLP))
    return candidates


def _list_owners(candidates: Sequence[_Candidate]) -> np.ndarray:
    """Return `(n_tried,)`: the number of the candidate of each row of margins."""
    return np.repeat(np.arange(len(candidates)), [each.n_tried for each in candidates])


def _measure_worth(
    held_out: HeldOutAnswers,
    margins: np.ndarray,
    candidates: Sequence[_Candidate],
    weights: _PartWeights,
) -> Iterator[CandidateWorth]:
    images, draws = held_out.images, held_out.draws
    for number, candidate in enumerate(candidates):
        others = np.delete(margins, number, axis=0)
        without = None
        if len(others):
            chosen = _choose_parts(others, images)
            without = weigh_images_alike(images) @ credit(chosen.margins(others))
        yield CandidateWorth(
            candidate.name,
            PooledScore.of(credit(margins[number]), images, draws),
            float(weights.weights[number]),
            without,
        )


def _choose_steps(margins: np.ndarray, owners: np.ndarray, images: np.ndarray) -> np.ndarray:
    """Return of each part the row of margins, `(n_tried, n_triplets)`, that is right most often.
    Images count alike; `owners` is the part of each row."""
    right = credit(margins) @ weigh_images_alike(images)
    # The first of those that are as good is the simplest: it has the fewest steps.
    return np.array(
        [max(np.flatnonzero(owners == part), key=right.item) for part in np.unique(owners)]
    )


def _measure_spreads(margins: np.ndarray) -> np.ndarray:
    """Return the root mean square of each row of margins; 1 for one that says nothing."""
    spreads = np.sqrt(np.mean(np.square(margins, dtype=np.float64), axis=-1))
    return np.where(spreads > 0, spreads, 1.0)


def _choose_parts(margins: np.ndarray, images: np.ndarray) -> _PartWeights:
    """Weigh parts by their held-out margins.

    Margins of different parts have different scales, so each is divided by its spread. Then the
    weights are learned that answer the held-out triplets best: none below 0, and held near each
    other as strongly as one image's triplets would, so that few triplets leave them alike and many
    decide. Adding parts greedily from an equal start was 1.1 points worse on letters and 0.5 better
    on many_classes, alike elsewhere.

    Reference:
        Breiman. Stacked regressions. Machine Learning 24, 1996. doi:10.1007/BF00117832 (weights
        from held-out predictions, none below 0).
    """
    spreads = _measure_spreads(margins)
    scaled = margins / spreads[:, None]
    hold = 1 / len(np.unique(images))
    # As large together as one part that is trusted.
    alike = np.full(len(margins), 1 / len(margins))

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        total = weights @ scaled
        misses = np.logaddexp(0, -total).mean()
        slopes = -np.exp(-np.logaddexp(0, total)) / len(total)
        away = weights - alike
        return misses + hold * away @ away, scaled @ slopes + 2 * hold * away

    found = minimize(loss, alike, jac=True, method="L-BFGS-B", bounds=[(0, None)] * len(margins))
    weights = found.x if found.x.sum() > 0 else alike
    return _PartWeights(weights / weights.sum(), spreads)


class SimplestTrainer(Trainer):
    """Takes the simplest kind of head, of `names`, within one standard error of the best of them.

    That a 95% interval of the difference holds 0 is too mild a rule: by it 2,330 judgements of
    letters took the frozen features, which answered 0.850 where this rule answered 0.859.

    Reference:
        Breiman, Friedman, Olshen, Stone. Classification and Regression Trees. 1984, 3.4.3 (the rule
        of one standard error).
    """

    def __init__(
        self, examples: Examples, settings: Settings, names: Sequence[str] = SIMPLEST_FIRST
    ) -> None:
        super().__init__(examples, settings)
        whole = _Candidate.of("features", slice(0, examples.features.shape[1]), COSINE)
        self.trainers = {
            name: PartsTrainer(
                examples,
                settings,
                [whole] if name == FROZEN else _list_candidates(examples, [name]),
            )
            for name in names
        }
        parts = [part for trainer in self.trainers.values() for part in trainer.candidates]
        self._together = PartsTrainer(examples, settings, parts)

    def answer(self, learned: np.ndarray, asked: np.ndarray, further: int = 0) -> np.ndarray:
        return self._together.answer(learned, asked, further)

    def choose(self, held_out: HeldOutAnswers | None) -> Chosen:
        if held_out is None:
            logger.info(
                "Nothing could be held out to choose by. Taken: %s, which begins as the frozen "
                "features.",
                MAP,
            )
            return self.trainers[MAP].choose(None)
        trainers = self.trainers.values()
        ends = np.cumsum([len(_list_owners(trainer.candidates)) for trainer in trainers])[:-1]
        chosen = [
            trainer.choose(replace(held_out, margins=margins))
            for trainer, margins in zip(trainers, np.split(held_out.margins, ends), strict=True)
        ]
        margins = np.stack([each.margins for each in chosen if each.margins is not None])
        of_recipes = replace(held_out, margins=margins)

        def choose(others: HeldOutAnswers) -> Callable[[np.ndarray], np.ndarray]:
            taken, _ = self._compare(others)
            return lambda of_asked: of_asked[taken]

        taken, worths = self._compare(of_recipes)
        answered = of_recipes.cross_fit(choose)
        return replace(chosen[taken], margins=answered, candidates=(), recipes=worths)

    def _compare(self, of_recipes: HeldOutAnswers) -> tuple[int, tuple[RecipeWorth, ...]]:
        """Return which recipe is taken, and what each is worth."""
        right, images, draws = credit(of_recipes.margins), of_recipes.images, of_recipes.draws
        scores = [PooledScore.of(of_recipe, images, draws) for of_recipe in right]
        best = int(np.argmax([score.accuracy for score in scores]))
        gaps = [compare_pooled(right[best], of_recipe, images, draws) for of_recipe in right]
        # Too few images for an interval cannot tell them apart, either.
        taken = next(
            number
            for number, (behind, interval) in enumerate(gaps)
            if interval is None or behind <= (behind - interval.low) / _REACH
        )
        worths = [
            RecipeWorth(name, score, behind, interval, number == taken)
            for number, (name, score, (behind, interval)) in enumerate(
                zip(self.trainers, scores, gaps, strict=True)
            )
        ]
        return taken, tuple(worths)

    def fit(self, on_epoch: OnEpoch = ignore_epoch, stages: Stages = no_stages) -> Fitted:
        return self.choose(None).trainer.fit(on_epoch, stages)
