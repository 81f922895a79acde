"""The settings of one stream: what is normal, what raises a suspicion, and what is done then."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from detectors.adapters import alibi
from detectors.base import Problem
from detectors.names import DetectorName
from service.domain.decision import ActionKind
from service.records.decode import canonical
from service.records.schema import FeatureKind
from service.settings.file import FieldError
from service.settings.section import Section

PositiveInt = Annotated[int, Field(ge=1)]


class ReferenceSettings(Section):
    """What normal looks like; give one of the two."""

    warm_up: int = Field(
        default=2000,
        ge=200,
        description="Observations at the start of the stream that are the reference window.",
    )
    file: Path | None = Field(
        default=None,
        description="Records that are the reference window instead, such as the training data.",
    )

    @model_validator(mode="after")
    def _one(self) -> ReferenceSettings:
        if self.file is not None and "warm_up" in self.model_fields_set:
            raise FieldError(("file",), "expected either warm_up or file, got both")
        return self


class ConfirmSettings(Section):
    """How a suspicion becomes an incident."""

    alpha: float = Field(
        default=0.01,
        ge=0.001,
        lt=0.5,
        description="Chance that a suspicion without a cause is confirmed.",
    )
    looks: tuple[PositiveInt, ...] = Field(
        default=(250, 500, 1000),
        min_length=1,
        description="Fresh observations after which the tests run; growing.",
    )
    max_wait: int = Field(
        default=5000,
        ge=1,
        description="Observations after which a suspicion ends even if labels are missing.",
    )
    min_labels: int = Field(
        default=100, ge=10, description="Labels that the tests which need labels wait for."
    )

    @model_validator(mode="after")
    def _order(self) -> ConfirmSettings:
        if list(self.looks) != sorted(set(self.looks)):
            raise FieldError(("looks",), f"expected growing numbers, got {list(self.looks)}")
        if self.max_wait < self.looks[-1]:
            raise FieldError(
                ("max_wait",),
                f"expected at least the last look ({self.looks[-1]}), got {self.max_wait}",
            )
        return self


class LabelSettings(Section):
    """How long observations wait for labels, and labels for observations."""

    max_pending: int = Field(
        default=10_000,
        ge=1,
        description="Observations that wait in memory with their rows, and labels; the oldest go "
        "to the store first.",
    )
    max_spilled: int = Field(
        default=1_000_000,
        ge=0,
        description="Of the observations and of the labels that went to the store, in each lane, "
        "the newest that can still meet; 0 to keep none there.",
    )
    spill_from_start: bool = Field(
        default=False,
        description="Send observations to the store also before a label has ever come by itself; "
        "only for streams whose very first label comes more than max_pending observations late.",
    )
    max_age_s: float = Field(
        default=2_592_000.0,
        gt=0,
        description="Seconds of the records' own time after which a label comes too late for its "
        "observation, and an observation for its label; 30 days.",
    )


class SegmentSettings(Section):
    """Parts of a stream that are watched by themselves too, with the budget shared."""

    by: tuple[Annotated[str, Field(min_length=1)], ...] = Field(
        default=(),
        max_length=5,
        description="Names in the records' segment, such as [camera]; every value of each is "
        "watched by itself, so that a fault of one camera is named as such.",
    )
    warm_up: int = Field(
        default=1000, ge=200, description="Observations of a value that are its own reference."
    )
    max_values: int = Field(
        default=50, ge=1, description="Values of a name that are watched; the first that come."
    )

    @field_validator("by")
    @classmethod
    def _different(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(value)) < len(value):
            raise ValueError(f"expected different names, got {list(value)}")
        return value


class OnConfirmedSettings(Section):
    """What is done about a confirmed shift; of a mixed one, the concept decides.

    A stream without a model is never fine-tuned: there the defaults mean `alert_only`.
    """

    covariate: ActionKind = Field(
        default=ActionKind.FINE_TUNE, description="Answer to a covariate shift."
    )
    prior: ActionKind = Field(default=ActionKind.REWEIGHT, description="Answer to a prior shift.")
    concept: ActionKind = Field(
        default=ActionKind.FINE_TUNE, description="Answer to a concept drift."
    )


class ModelSettings(Section):
    """The model that Shiftwatch scores with and repairs."""

    family: Literal["vgg16", "tabular"] = Field(
        default="vgg16", description="VGG-16 for images, or a classifier for tabular features."
    )
    weights: str = Field(
        default="imagenet",
        min_length=1,
        description="Where the first version of a VGG-16 starts: imagenet, source (from scratch "
        "on the source data), or a weights file.",
    )
    input_size: tuple[int, int] = Field(
        default=(32, 32), description="Height and width that images are scaled to; 32 to 1024."
    )
    dense_units: int = Field(
        default=256, ge=1, le=8192, description="Units of a VGG-16's two dense layers."
    )
    embedding_components: int = Field(
        default=16,
        ge=16,
        le=32,
        description="Principal components of a VGG-16's embedding that are watched, beside the "
        "images' properties.",
    )
    precision: Literal["auto", "float32", "mixed_bfloat16"] = Field(
        default="auto",
        description="Arithmetic of training; auto is mixed_bfloat16 where the processor computes "
        "with it (AVX-512 BF16, AMX) and float32 elsewhere. The version's manifest says which.",
    )
    strategy: Literal["auto", "fixed_features", "last_block", "higher_blocks", "all_layers"] = (
        Field(
            default="auto",
            description="How much of a VGG-16 is trained; auto decides by labels and similarity.",
        )
    )
    epochs: PositiveInt | None = Field(
        default=None, description="Passes over the training rows; none for the strategy's own."
    )
    learning_rate: Annotated[float, Field(gt=0, le=1)] | None = Field(
        default=None, description="Step size; none for the strategy's own."
    )
    time_box_s: float = Field(
        default=900.0, gt=0, description="Seconds after which a training stops and is evaluated."
    )
    max_per_day: int = Field(
        default=10, ge=0, description="Trainings a day, by the records' times; 0 for none."
    )
    min_labels: int = Field(
        default=200, ge=50, description="Labels from after the change that a training waits for."
    )
    max_samples: int = Field(
        default=20_000, ge=1000, description="Newest observations kept to train on."
    )
    max_anchor_drop: float = Field(
        default=0.05,
        ge=0,
        le=1,
        description="Accuracy that a candidate may lose on rows from before the change, where the "
        "concept did not move.",
    )
    approval: Literal["auto", "manual"] = Field(
        default="auto", description="Whether a better candidate is promoted at once or by hand."
    )
    saved_model: bool = Field(
        default=False, description="Also write versions in TensorFlow Serving's layout."
    )

    @field_validator("input_size")
    @classmethod
    def _fits(cls, value: tuple[int, int]) -> tuple[int, int]:
        # Five poolings halve a side five times.
        if not all(32 <= side <= 1024 for side in value):
            raise ValueError(f"expected sides of 32 to 1024, got {list(value)}")
        return value


class StreamSettings(Section):
    """One monitored model's events."""

    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$",
        description="Name in records, metrics and paths: 1 to 128 letters, digits, '.', '_' or "
        "'-', the first a letter or digit.",
    )
    problem: Problem = Field(
        description="Direction of cause: x_to_y if the features decide the label (fraud, spam), "
        "y_to_x if the label causes the features (diagnosis, most images of things); it decides "
        "which shifts exist, so a guess would give wrong verdicts and there is no default."
    )
    features: dict[str, FeatureKind] | None = Field(
        default=None,
        min_length=1,
        description="Every feature and its kind; none to learn them from the first observations.",
    )
    classes: tuple[str, ...] | None = Field(
        default=None,
        min_length=2,
        description="All classes; none to learn them from the reference's labels.",
    )
    reference: ReferenceSettings = Field(
        default_factory=ReferenceSettings, description="What normal looks like: warm_up or file."
    )
    false_alarm_every: int = Field(
        default=200_000,
        ge=1000,
        description="Observations between false confirmed incidents of the whole stream.",
    )
    detectors: tuple[DetectorName, ...] = Field(
        default=(DetectorName.CUSUM,),
        min_length=1,
        description="What raises a suspicion: cusum, newma, and conformal and e_detector, whose "
        "promise is a theorem and whose alarms come later, keep their part of false_alarm_every; "
        "sd_ewma, tssd_ewma, adwin, page_hinkley, kswin, ddm, eddm, hddm_a, hddm_w and, from the "
        "extra alibi, alibi_mmd, alibi_lsdd, alibi_cvm and alibi_fet only raise suspicions as "
        "published, and every suspicion is confirmed or dismissed all the same.",
    )
    confirm: ConfirmSettings = Field(
        default_factory=ConfirmSettings, description="How a suspicion becomes an incident."
    )
    labels: LabelSettings = Field(
        default_factory=LabelSettings, description="How long observations wait for labels."
    )
    segments: SegmentSettings = Field(
        default_factory=SegmentSettings,
        description="Parts of the stream that are watched by themselves too.",
    )
    on_confirmed: OnConfirmedSettings = Field(
        default_factory=OnConfirmedSettings, description="What is done about a confirmed shift."
    )
    cool_down: int = Field(
        default=0,
        ge=0,
        description="Observations after a repair in which no new suspicion is opened.",
    )
    model: ModelSettings | None = Field(
        default=None, description="The model to score with and to repair; none to only watch."
    )

    @field_validator("detectors")
    @classmethod
    def _different(cls, value: tuple[DetectorName, ...]) -> tuple[DetectorName, ...]:
        if len(set(value)) < len(value):
            raise ValueError(f"expected different detectors, got {[str(v) for v in value]}")
        for n, name in enumerate(value):
            if name.needs_alibi and not alibi.is_installed():
                raise FieldError(
                    (n,), f"{name} needs alibi-detect: pip install 'shiftwatch[alibi]'"
                )
        return value

    @field_validator("classes", mode="before")
    @classmethod
    def _canonical(cls, value: object) -> object:
        if not isinstance(value, list | tuple):
            return value
        for n, item in enumerate(value):
            if isinstance(item, bool):
                raise FieldError(
                    (n,),
                    "expected text or a number; YAML reads yes, no, on and off as booleans: "
                    "quote the class",
                )
        names = tuple(canonical(item, "a class") for item in value)
        if len(set(names)) < len(names):
            raise ValueError(f"expected different classes, got {list(names)}")
        return names

    @model_validator(mode="after")
    def _consistent(self) -> StreamSettings:
        if self.model is None:
            for factor in sorted(self.on_confirmed.model_fields_set):
                if getattr(self.on_confirmed, factor) is ActionKind.FINE_TUNE:
                    raise FieldError(
                        ("on_confirmed", factor),
                        "fine_tune needs a model: add the stream's model section, or use "
                        "reweight or alert_only",
                    )
        return self
