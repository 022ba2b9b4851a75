"""The trainer of `best`: parts weighed by held-out answers, each trained on all triplets."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from tripletkit import defaults
from tripletkit.evaluation.distances import triplet_margins
from tripletkit.evaluation.pooled import CandidateWorth, score_pooled, weigh_images_alike
from tripletkit.evaluation.validation import describe_alike
from tripletkit.features.unit_length import scale_to_unit_length
from tripletkit.model.embedding import embed, fit_projection
from tripletkit.model.history import EpochRecord, TrainedHead
from tripletkit.model.part_heads import TrainedPart, join_parts
from tripletkit.model.recipes import COSINE, MAP, MLP, PART_HEADS, RESIDUAL, Part, get_recipe
from tripletkit.model.settings import HeadSettings
from tripletkit.progress import Progress, Stages, no_progress, no_stages
from tripletkit.training.collapse import check_collapse
from tripletkit.training.held_out import credit, cross_fit
from tripletkit.training.linear_map import MapSettings, embed_map, train_map
from tripletkit.training.part_training import (
    MLP_PART,
    RESIDUAL_PART,
    PartFeatures,
    PartSettings,
    embed_part,
    train_part,
)
from tripletkit.training.part_weights import (
    PartWeights,
    choose_parts,
    choose_steps,
    measure_spreads,
)
from tripletkit.training.trainer import (
    Chosen,
    Examples,
    Fitted,
    HeldOutAnswers,
    OnEpoch,
    Trainer,
    ignore_epoch,
)

Weights = list[np.ndarray]

# Squared, because those of an ensemble's parts add up.
PART_DISTANCE = "squared-l2"
# Parts below this share of the distances are left out.
_MIN_WEIGHT = 0.01


@dataclass(frozen=True)
class Candidate:
    """A part that may become one of the ensemble.

    Attributes:
        features: what its columns are called.
        columns: of the features.
        head: one of `PART_HEADS`.
        settings: how it is trained, with what is to be tried; None where it is not trained.
    """

    features: str
    columns: slice
    head: str
    settings: PartSettings | MapSettings | None = None

    @classmethod
    def of(cls, features: str, columns: slice, head: str) -> Candidate:
        """Return a candidate with the settings of its head."""
        settings = {MAP: MapSettings(), RESIDUAL: RESIDUAL_PART, MLP: MLP_PART}.get(head)
        return cls(features, columns, head, settings)

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
        return 1 if self.settings is None else self.settings.n_variants

    def after(self, place: int | None = None) -> Candidate:
        """Return the candidate with one variant: that at a place, or the usual one."""
        if self.settings is None:
            return self
        return replace(self, settings=self.settings.variant(place))

    def embed(self, features: PartFeatures, images: np.ndarray, weights: Weights) -> np.ndarray:
        """Return the embeddings of some images: `(n, n_dims)` float32 of length 1."""
        scaled = features.scaled[images]
        if isinstance(self.settings, MapSettings):
            return embed_map(scaled, weights)
        if self.settings is None:
            return scale_to_unit_length(scaled)
        return embed_part(scaled, weights, self.settings)


class PartsTrainer(Trainer):
    """Trains parts, of which held-out answers choose the steps and the weights.

    Its variants are all numbers of steps of all candidates, until weights are chosen.

    Args:
        examples, settings: see `Trainer`.
        candidates: parts to choose from. Defaults to every head on every block of features, on all
            of them where the examples name none.
        weights: how they are weighed; None until they are.
        accuracy: of held-out answers, for the history; NaN without any.
    """

    def __init__(
        self,
        examples: Examples,
        settings: HeadSettings,
        candidates: Sequence[Candidate] | None = None,
        weights: PartWeights | None = None,
        accuracy: float = np.nan,
    ) -> None:
        super().__init__(examples, settings)
        if candidates is None:
            whole = {"features": slice(0, examples.features.shape[1])}
            blocks = feature_blocks(examples.columns or whole)
            candidates = list_candidates(blocks, get_recipe(settings.recipe).part_heads)
        self.candidates = list(candidates)
        if len({candidate.head for candidate in self.candidates}) > 1:
            # To weigh heads takes more answers than to tell an accuracy; see `docs/benchmarks.md`.
            self.n_enough = defaults.WEIGHED_TRIPLETS
        self.weights = weights
        self._accuracy = accuracy

    def answer(self, learned: np.ndarray, asked: np.ndarray, further: int = 0) -> np.ndarray:
        seed = self.settings.seed + further
        if self.weights is None:
            return self._answer_apart(learned, asked, self.candidates, seed)
        # The others have no say.
        weighed = np.flatnonzero(self.weights.weights > 0)
        of_parts = np.zeros((len(self.candidates), len(asked)), np.float32)
        chosen = [self.candidates[number] for number in weighed]
        of_parts[weighed] = self._answer_apart(learned, asked, chosen, seed)
        return self.weights.margins(of_parts)[None]

    def choose(self, held_out: HeldOutAnswers | None) -> Chosen:
        if held_out is None:
            return Chosen(self._weighed_alike([each.after() for each in self.candidates]))
        owners = list_owners(self.candidates)
        rows_of = choose_steps(held_out.margins, owners, held_out.images)
        firsts = np.searchsorted(owners, np.arange(len(self.candidates)))
        candidates = [
            candidate.after(int(place))
            for candidate, place in zip(self.candidates, rows_of - firsts, strict=True)
        ]
        margins = held_out.margins[rows_of]
        weights = choose_parts(margins, held_out.images)

        def choose(of_others: np.ndarray, images: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
            rows = choose_steps(of_others, owners, images)
            chosen = choose_parts(of_others[rows], images)
            return lambda of_asked: chosen.margins(of_asked[rows])

        answered = cross_fit(held_out, choose)
        accuracy = weigh_images_alike(held_out.images) @ credit(answered)
        return Chosen(
            PartsTrainer(self.examples, self.settings, candidates, weights, float(accuracy)),
            answered,
            candidates=tuple(_measure_worth(held_out, margins, candidates, weights)),
        )

    def fit(self, _on_epoch: OnEpoch = ignore_epoch, stages: Stages = no_stages) -> Fitted:
        parts = self.train_parts(stages("heads"))
        return Fitted(self._join(parts), self.settings, tuple(each.part for each in parts))

    def for_curve(self) -> PartsTrainer:
        """Return the strongest part that is trained, alone."""
        is_trained = [candidate.settings is not None for candidate in self.candidates]
        strongest = int(np.argmax(self.weights.weights * is_trained))
        return self._weighed_alike([self.candidates[strongest]])

    def train_parts(self, progress: Progress = no_progress) -> list[TrainedPart]:
        """Train what was chosen on all triplets.

        Args:
            progress: told (done, total) in heads.
        Returns:
            Every head of each part that is trained, and one of each that is not; parts of hardly
            any weight are left out.
        """
        rows, features, weights = self.examples.rows, self.examples.features, self.weights.weights
        images, seed = np.unique(rows), self.settings.seed
        shares = self.weights.distance_weights * (weights >= min(_MIN_WEIGHT, weights.max()))
        shares /= shares.sum()
        n_heads = [
            0 if not share else 1 if candidate.settings is None else candidate.settings.n_heads
            for candidate, share in zip(self.candidates, shares, strict=True)
        ]
        parts: list[TrainedPart] = []
        for columns, is_standardised, numbers in group_by_features(self.candidates):
            if not any(n_heads[number] for number in numbers):
                continue
            of_block = PartFeatures.of(
                features[:, columns], images, is_standardised=is_standardised
            )
            for number in numbers:
                if not n_heads[number]:
                    continue
                candidate = self.candidates[number]
                part = candidate_part(candidate, of_block, float(shares[number]) / n_heads[number])
                for (trained,) in train_heads(
                    of_block, rows, candidate, [seed, number], self.examples.loss_weights
                ):
                    parts.append(TrainedPart(part, trained, of_block.scaling))
                    progress(len(parts), sum(n_heads))
        return parts

    def _weighed_alike(self, candidates: Sequence[Candidate]) -> PartsTrainer:
        """Return a trainer whose parts have the same say, by the spread of their features' own
        margins: those of features that are not standardised are many times smaller."""
        features, rows = self.examples.features, self.examples.rows
        images, spreads = np.unique(rows), np.ones(len(candidates))
        for columns, is_standardised, numbers in group_by_features(candidates):
            of_block = PartFeatures.of(
                features[:, columns], images, 1, is_standardised=is_standardised
            )
            embeddings = scale_to_unit_length(of_block.scaled)
            spreads[numbers] = measure_spreads(triplet_margins(embeddings, rows, PART_DISTANCE))
        weights = PartWeights(np.full(len(candidates), 1 / len(candidates)), spreads)
        return PartsTrainer(self.examples, self.settings, candidates, weights)

    def _answer_apart(
        self, learned: np.ndarray, asked: np.ndarray, candidates: Sequence[Candidate], seed: int
    ) -> np.ndarray:
        """Return `(n_tried, n_asked)` float32 margins of candidates, the rows as `list_owners`."""
        rows, loss_weights = self.examples.rows[learned], self.examples.weights_of(learned)
        images, places = np.unique(np.concatenate([rows, asked]), return_inverse=True)
        places = places.reshape(-1, 3)
        trained, questions = places[: len(rows)], places[len(rows) :]
        needed, questions = np.unique(questions, return_inverse=True)
        owners = list_owners(candidates)
        margins = np.empty((len(owners), len(asked)), np.float32)
        for columns, is_standardised, numbers in group_by_features(candidates):
            of_block = PartFeatures.of(
                self.examples.features[images, columns],
                np.unique(trained),
                is_standardised=is_standardised,
            )
            for number in numbers:
                candidate = candidates[number]
                of_heads = [
                    [
                        triplet_margins(
                            candidate.embed(of_block, needed, weights),
                            questions.reshape(-1, 3),
                            PART_DISTANCE,
                        )
                        for weights in after_steps
                    ]
                    for after_steps in train_heads(
                        of_block, trained, candidate, [seed, number], loss_weights
                    )
                ]
                margins[owners == number] = np.mean(of_heads, axis=0)
        return margins

    def _join(self, parts: Sequence[TrainedPart]) -> TrainedHead:
        """Return trained parts as a trained model, compressed if so asked.

        RecipeError: if they cannot be compressed as asked.
        """
        settings, features = self.settings, self.examples.features
        head = join_parts(features.shape[1], parts)
        images, places = np.unique(self.examples.rows, return_inverse=True)
        if settings.is_compressed:
            head = head.compressed(*fit_projection(embed(head, features[images]), settings))
        embeddings = embed(head, features[images])
        margins = triplet_margins(embeddings, places.reshape(-1, 3), PART_DISTANCE)
        loss = float(np.maximum(settings.margin - margins, 0).mean())
        spread, rank = check_collapse(
            embeddings, loss, settings, find_cause=lambda: describe_alike(features, images)
        )
        active = float(np.mean(margins < settings.margin))
        record = EpochRecord(1, loss, active, self._accuracy, spread, rank)
        return TrainedHead(head, [record], 1)


def feature_blocks(columns: Mapping[str, slice]) -> dict[str, slice]:
    """Return the columns of each network's last features, and of its early ones together.

    An ensemble weighs these: the last layers tell classes apart, the early ones what people
    see.

    Args:
        columns: of an encoder, such as `efficientnet-lite0` and
            `efficientnet-lite0:block3b_depthwise_relu6`.
    Example:
        >>> feature_blocks({"net": slice(0, 4), "net:a": slice(4, 6), "net:b": slice(6, 9)})
        {'net': slice(0, 4, None), 'net early': slice(4, 9, None)}
    """
    blocks: dict[str, slice] = {}
    for name, taken in columns.items():
        network, _, stage = name.partition(":")
        name = f"{network} early" if stage else network
        # The stages of one network stand side by side.
        start = blocks[name].start if name in blocks else taken.start
        blocks[name] = slice(start, taken.stop)
    return blocks


def list_candidates(
    blocks: Mapping[str, slice], heads: Sequence[str] = PART_HEADS
) -> list[Candidate]:
    """Return every head on every block of features."""
    return [Candidate.of(name, columns, head) for name, columns in blocks.items() for head in heads]


def list_owners(candidates: Sequence[Candidate]) -> np.ndarray:
    """Return `(n_tried,)`: the number of the candidate of each row of margins."""
    return np.repeat(np.arange(len(candidates)), [each.n_tried for each in candidates])


def group_by_features(
    candidates: Sequence[Candidate],
) -> Iterator[tuple[slice, bool, list[int]]]:
    """Yield columns, whether they are standardised, and the numbers of who takes them so."""
    numbers: dict[tuple[int, int, bool], list[int]] = {}
    for number, candidate in enumerate(candidates):
        columns = candidate.columns
        key = (columns.start, columns.stop, candidate.is_standardised)
        numbers.setdefault(key, []).append(number)
    for (start, stop, is_standardised), of_columns in numbers.items():
        yield slice(start, stop), is_standardised, of_columns


def candidate_part(candidate: Candidate, features: PartFeatures, weight: float) -> Part:
    """Return one head of a candidate as the record has it."""
    settings = candidate.settings
    hidden, n_dims, n_steps = 0, features.n_features, 0
    if isinstance(settings, MapSettings):
        hidden = features.directions.shape[1]
    elif settings is not None:
        hidden, n_steps = settings.hidden, settings.usual_steps
        n_dims = settings.n_dims or n_dims
    columns = candidate.columns
    return Part(
        candidate.features,
        columns.start,
        columns.stop,
        candidate.head,
        hidden,
        n_dims,
        weight,
        n_steps,
    )


def train_heads(
    features: PartFeatures,
    rows: np.ndarray,
    candidate: Candidate,
    seed: Sequence[int],
    loss_weights: np.ndarray | None,
) -> Iterator[list[Weights]]:
    """Yield the weights of each head of a candidate, in each variant.

    Of a candidate that is not trained there is a single head, without weights.

    Args:
        features, rows, loss_weights: see `train_part`.
        seed: of all heads; the number of each is added.
    """
    settings = candidate.settings
    if settings is None:
        yield [[]]
        return
    if isinstance(settings, MapSettings):
        yield train_map(features, rows, settings, loss_weights)
        return
    for number in range(settings.n_heads):
        own = int(np.random.SeedSequence([*seed, number]).generate_state(1)[0])
        yield train_part(features, rows, settings, own, loss_weights)


def _measure_worth(
    held_out: HeldOutAnswers,
    margins: np.ndarray,
    candidates: Sequence[Candidate],
    weights: PartWeights,
) -> Iterator[CandidateWorth]:
    images, draws = held_out.images, held_out.draws
    for number, candidate in enumerate(candidates):
        others = np.delete(margins, number, axis=0)
        without = None
        if len(others):
            chosen = choose_parts(others, images)
            without = weigh_images_alike(images) @ credit(chosen.margins(others))
        yield CandidateWorth(
            candidate.name,
            score_pooled(credit(margins[number]), images, draws),
            float(weights.weights[number]),
            without,
        )
