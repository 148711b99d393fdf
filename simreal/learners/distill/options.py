"""Settings of students."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from simreal.learners.options import ActorOptions, largest_layer


class DistillConfig(ActorOptions):
    """A student that is shown by a teacher, a finished run, what to do in the states that it gets into itself."""

    STAGGERED = True

    algorithm: Literal["distill"] = "distill"
    teacher: str | None = Field(None, description="directory of a finished run of the same task")
    teachers: tuple[str, ...] = Field(
        (),
        description="directories of several; a gate weighs them in every state by the returns that they get from there",
    )
    horizon: int = Field(32, ge=1, description="steps of every environment between updates")
    beta: float = Field(
        0.0,
        ge=0,
        le=1,
        description="the teacher steers a share beta^i of environments in rollout i: the first one whole",
    )
    rollouts: int = Field(8, ge=1, description="last rollouts that the student learns from")
    gradient_steps: int = Field(40, ge=1, description="after every rollout")
    batch_size: int = Field(2048, ge=1, description="steps of experience in a gradient step")
    lr: float = Field(1e-3, gt=0, description="Adam step size, at the start")
    lr_schedule: Literal["constant", "linear"] = Field("constant", description="linear: to 0 at the end of the run")
    max_grad_norm: float = Field(1.0, gt=0, description="gradients are scaled down to this norm")
    latent: Literal["none", "regression"] = Field(
        "none", description="regression: the student also estimates the parameters of the world, which are logged"
    )
    latent_coef: float = Field(0.1, gt=0, description="weight of the error of these estimates")
    gate_share: float = Field(
        0.25, gt=0, lt=1, description="share of environments in which teachers show their returns"
    )
    gate_temperature: float = Field(
        0.1, gt=0, description="difference of returns, in std of returns, that makes a teacher e times as heavy"
    )
    gamma: float = Field(
        0.99, ge=0, lt=1, description="discount per control step of the returns that the gate compares"
    )

    @model_validator(mode="after")
    def _teachers_fit_together(self) -> Self:
        if self.teacher is not None and self.teachers:
            raise ValueError("teacher, teachers: expected one of them, got both")
        if self.teacher is None and not self.teachers:
            raise ValueError("teacher: missing; expected the directory of a finished run, or several as teachers")
        if len(self.teachers) == 1:
            raise ValueError("teachers: expected at least two, got one; name a single one as teacher")
        if self.memory != "none" and self.batch_size < self.segment:
            raise ValueError(f"batch_size: expected at least segment ({self.segment}), got {self.batch_size}")
        return self

    @property
    def runs(self) -> dict[str, tuple[str, ...]]:
        """The teachers' runs."""
        return {"teacher": (self.teacher,)} if self.teacher is not None else {"teachers": self.teachers}

    def largest_product(self, num_envs: int) -> int:
        """Multiply-adds of the largest matrix product of an update."""
        return self.batch_size * largest_layer(self.actor_hidden)

    def without_experience(self) -> Self:
        """The settings with rollouts of one step."""
        return self.model_copy(update={"horizon": 1, "segment": 1, "rollouts": 1})
