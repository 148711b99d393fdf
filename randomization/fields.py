"""Where the values of named objects lie in MuJoCo's model fields."""

from __future__ import annotations

from envs.task import Task


def field_elements(task: Task, field: str, index: int) -> list[int]:
    """Flat indices, within one environment's values of a field, that belong to object `index` of the field's kind."""
    model = task.model
    if field == "body_mass":
        return [index]
    if field in ("body_inertia", "geom_friction"):
        return list(range(3 * index, 3 * index + 3))
    if field == "dof_damping":
        start = int(model.jnt_dofadr[index])
        width = {0: 6, 1: 3}.get(int(model.jnt_type[index]), 1)  # free, ball, else slide or hinge
        return list(range(start, start + width))
    if field == "actuator_gainprm":
        return [index * model.actuator_gainprm.shape[1]]
    if field == "actuator_biasprm":  # bias = prm0 + prm1 * length + prm2 * velocity; prm0 is no gain
        start = index * model.actuator_biasprm.shape[1]
        return [start + 1, start + 2]
    if field == "opt.gravity":
        return [index]
    raise KeyError(f"nothing is known of the layout of {field}")


def nominal_values(task: Task, field: str, index: int) -> list[float]:
    """Nominal values of a field that belong to object `index`."""
    owner = task.model.opt if field.startswith("opt.") else task.model
    flat = getattr(owner, field.removeprefix("opt.")).ravel()
    return [float(flat[e]) for e in field_elements(task, field, index)]
