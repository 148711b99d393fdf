"""contract.h: the contract's names, units, order, limits, gains and period as constants, and their tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from simreal.export.c.text import Identifiers, comment, number, string

MARK = "/* simreal-policy as C99"  # how a file of ours begins

_TYPES = """
/* A component of the observation or the action: values [start, start + size) of the vector. */
typedef struct {
    const char *name, *unit, *frame, *description;
    int start, size;
} policy_component;

/* A value of the observation, in its component's unit; "" and NAN where the contract says nothing. */
typedef struct {
    const char *element, *joint;
    double offset, scale;           /* what the network sees is (value - offset) / scale; 0 where scale is 0 */
    double trained_low, trained_high; /* seen in training; beyond it the policy guesses */
} policy_observation_value;

/* A value of the action, in its component's unit: target = offset + scale * action, added to the last command where
 * `added_to` is "target", or to what that component of the observation shows; within [low, high]. torque = stiffness *
 * (target - angle) - damping * velocity within +-effort_limit. */
typedef struct {
    const char *element, *joint, *actuator, *added_to;
    double offset, scale, low, high, smoothing;
    double stiffness, damping, effort_limit;
} policy_action_value;

/* A value that is sent; other ones than those of the action where a tool's steps become steps of joints. */
typedef struct {
    const char *joint, *actuator, *unit;
    double low, high;
} policy_target_value;

extern const policy_component policy_observation_components[POLICY_OBSERVATION_COMPONENTS];
extern const policy_observation_value policy_observation_values[POLICY_OBSERVATION_SIZE];
extern const policy_component policy_action_components[POLICY_ACTION_COMPONENTS];
extern const policy_action_value policy_action_values[POLICY_ACTION_SIZE];
extern const policy_target_value policy_target_values[POLICY_TARGET_SIZE];
"""


def contract_header(contract: Mapping[str, Any], sizes: Mapping[str, int], weights: Mapping[str, Any]) -> str:
    """The file.

    Args:
        contract: policy.json.
        sizes: of the macros POLICY_..._SIZE.
        weights: further macros, text or numbers.
    """
    macros: dict[str, str] = {
        "POLICY_TASK": string(contract["task"]),
        "POLICY_SIMREAL_VERSION": string(contract["versions"]["simreal"]),
        "POLICY_CONTRACT_SHA256": string(contract["contract_sha256"]),
        "POLICY_CONTROL_PERIOD_S": number(contract["control_period_s"]),
        "POLICY_OBSERVATION_COMPONENTS": str(len(contract["observation"])),
        "POLICY_ACTION_COMPONENTS": str(len(contract["action"])),
    }
    macros |= {f"POLICY_{name.upper()}_SIZE": str(size) for name, size in sizes.items()}
    macros |= {f"POLICY_{name}": value if isinstance(value, str) else number(value) for name, value in weights.items()}
    names = Identifiers([*macros, "POLICY_OK", "POLICY_OBSERVATION_NOT_FINITE", "POLICY_ACTION_NOT_FINITE"])
    return "".join([
        f"{MARK}: what the numbers mean, as policy.json of the bundle of that sha256 states it. */\n"
        "#ifndef SIMREAL_CONTRACT_H\n#define SIMREAL_CONTRACT_H\n\n",
        *(f"#define {name} {value}\n" for name, value in macros.items()),
        "\n/* Where components and their values lie in an observation, in the order in which they come. */\n",
        _places(contract["observation"], "POLICY_OBS", names),
        "\n/* The same of an action. */\n",
        _places(contract["action"], "POLICY_ACT", names),
        _TYPES,
        "\n#endif\n",
    ])  # fmt: skip


def _places(entries: Sequence[Mapping[str, Any]], prefix: str, names: Identifiers) -> str:
    """Enumerators of components and their elements."""
    lines = ["enum {\n"]
    for entry in entries:
        start, stop = entry["index"]
        first = names.name(prefix, entry["name"])
        what = comment(f"{entry['name']}, {entry['unit']}, frame {entry['frame']}: {entry['description']}")
        lines.append(f"    /* {what} */\n    {first} = {start},\n")
        lines.append(f"    {names.name(first, 'size')} = {stop - start},\n")
        # Names of values stand only once where each is told from the others by it.
        for i, element in enumerate(entry["elements"] or entry["joints"] if stop - start > 1 else []):
            if i < stop - start:
                lines.append(f"    {names.name(first, element)} = {start + i},\n")
    lines[-1] = lines[-1].replace(",\n", "\n")
    return "".join([*lines, "};\n"])


def contract_tables(contract: Mapping[str, Any]) -> str:
    """Definitions of the tables that contract.h declares."""
    seen, done = contract["observation"], contract["action"]
    observed = [
        [string(_of(e, "elements", i)), string(_of(e, "joints", i)), number(e["offset"][i]), number(e["scale"][i]),
         *(number(e["training_range"][side][i] if e["training_range"] else None) for side in ("lower", "upper"))]
        for e in seen for i in range(*e["shape"])
    ]  # fmt: skip
    told = [
        [*(string(_of(e, key, i)) for key in ("elements", "joints", "actuators")), string(_added_to(e)),
         number(e["offset"][i]), number(e["scale"][i]), *_limits(e, i), number(e["smoothing"]),
         *(number(_of(e, key, i)) for key in ("stiffness", "damping", "effort_limit"))]
        for e in map(_of_action, done) for i in range(*e["shape"])
    ]  # fmt: skip
    sent = [
        [*(string(_of(e, key, i)) for key in ("joints", "actuators")), string(_unit(e)), *_limits(e, i)]
        for e in done for i in range(_sent(e))
    ]  # fmt: skip
    return "\n".join([
        _table("policy_component policy_observation_components[POLICY_OBSERVATION_COMPONENTS]", map(_component, seen)),
        _table("policy_observation_value policy_observation_values[POLICY_OBSERVATION_SIZE]", observed),
        _table("policy_component policy_action_components[POLICY_ACTION_COMPONENTS]", map(_component, done)),
        _table("policy_action_value policy_action_values[POLICY_ACTION_SIZE]", told),
        _table("policy_target_value policy_target_values[POLICY_TARGET_SIZE]", sent),
    ])  # fmt: skip


def _component(entry: Mapping[str, Any]) -> list[str]:
    start, stop = entry["index"]
    texts = [string(entry[key]) for key in ("name", "unit", "frame", "description")]
    return [*texts, str(start), str(stop - start)]


def _of(entry: Mapping[str, Any], key: str, i: int) -> Any:
    """What an entry says of its value i; None where it says nothing. One name may hold for all."""
    values = entry[key]
    return values[i] if i < len(values) else None


def _of_action(entry: Mapping[str, Any]) -> Mapping[str, Any]:
    """An entry without what it says of the joints that carry a tool: its values are none of them."""
    if entry.get("inverse") is None:
        return entry
    of_joints = ("joints", "actuators", "stiffness", "damping", "effort_limit")
    return {**entry, **dict.fromkeys(of_joints, ()), "target_limits": None}


def _sent(entry: Mapping[str, Any]) -> int:
    """How many values are sent of a component."""
    inverse = entry.get("inverse")
    return entry["shape"][0] if inverse is None else len(inverse["links"])


def _unit(entry: Mapping[str, Any]) -> str:
    """Of what is sent."""
    inverse = entry.get("inverse")
    return entry["unit"] if inverse is None else inverse["unit"]


def _added_to(entry: Mapping[str, Any]) -> str:
    relative = entry.get("relative") or ""
    return relative if isinstance(relative, str) else relative["component"]


def _limits(entry: Mapping[str, Any], i: int) -> list[str]:
    low, high = entry["target_limits"] or ([None], [None])
    ends = low[i] if i < len(low) else None, high[i] if i < len(high) else None
    return ["-HUGE_VAL" if ends[0] is None else number(ends[0]), "HUGE_VAL" if ends[1] is None else number(ends[1])]


def _table(what: str, rows: Any) -> str:
    return f"const {what} = {{\n" + ",\n".join("    {" + ", ".join(row) + "}" for row in rows) + "\n};\n"
